//! Just enough HTTP/1.1 for a proxy: heads as they are on the wire, and bodies of a known length or in chunks.

use std::io;

use tokio::io::{AsyncBufRead, AsyncBufReadExt, AsyncRead, AsyncReadExt};

/// Larger than any head.
const MAX_BYTES: usize = 256 << 10;

/// The head of a request or a response, as it is on the wire.
#[derive(Clone, Debug)]
pub(super) struct Head {
    pub bytes: Vec<u8>,
    /// The first line's words.
    pub words: Vec<String>,
    headers: Vec<(String, String)>,
}

impl Head {
    /// Reads a head; None if the other end closed the connection before it.
    pub async fn read(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        loop {
            let before = bytes.len();
            if from.read_until(b'\n', &mut bytes).await? == 0 {
                return if bytes.is_empty() { Ok(None) } else { Err(io::ErrorKind::UnexpectedEof.into()) };
            }
            if bytes.len() > MAX_BYTES {
                return Err(io::Error::other("a head of more than 256 KiB"));
            }
            if matches!(&bytes[before..], b"\r\n" | b"\n") {
                break;
            }
        }
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let mut lines = text.lines();
        let words = lines.next().unwrap_or_default().split_whitespace().map(str::to_string).collect();
        let header = |line: &str| {
            line.split_once(':').map(|(k, v)| (k.trim().to_ascii_lowercase(), v.trim().to_string()))
        };
        Ok(Some(Self { bytes, words, headers: lines.filter_map(header).collect() }))
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// The status of a response.
    pub fn status(&self) -> u16 {
        self.words.get(1).and_then(|word| word.parse().ok()).unwrap_or(0)
    }

    /// Reads the body that follows, as it is on the wire; `empty` if none follows, independent of the head.
    pub async fn body(&self, from: &mut (impl AsyncBufRead + Unpin), empty: bool) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        if empty {
            return Ok(body);
        }
        if self.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            loop {
                let start = body.len();
                from.read_until(b'\n', &mut body).await?;
                let line = String::from_utf8_lossy(&body[start..]).into_owned();
                let size = line.trim().split(';').next().unwrap_or_default();
                let size = usize::from_str_radix(size, 16).map_err(|_| io::Error::other("a bad chunk"))?;
                take(from, size + 2, &mut body).await?;
                if size == 0 {
                    return Ok(body);
                }
            }
        }
        let length = self.header("content-length").and_then(|value| value.parse().ok()).unwrap_or(0);
        take(from, length, &mut body).await?;
        Ok(body)
    }
}

async fn take(from: &mut (impl AsyncRead + Unpin), bytes: usize, into: &mut Vec<u8>) -> io::Result<()> {
    let start = into.len();
    into.resize(start + bytes, 0);
    from.read_exact(&mut into[start..]).await.map(drop)
}

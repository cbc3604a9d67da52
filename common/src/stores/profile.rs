//! Reads the keys, region and endpoint of a profile like AWS's own programs: the profile is `AWS_PROFILE` or `default`,
//! and the files are `~/.aws/credentials` and `~/.aws/config`, or those that `AWS_SHARED_CREDENTIALS_FILE` and
//! `AWS_CONFIG_FILE` name.
//!
//! A file that cannot be read, or a profile that only refers to another source (`sso_session`, `source_profile`,
//! `credential_process`), is not an error: other credentials may be available. Not here: which credentials are used
//! (`credentials`).

use std::io::ErrorKind;
use std::path::PathBuf;

use super::BucketError;
use crate::environment;
use crate::secrets;

/// Settings that refer to another source of credentials.
const ELSEWHERE: [&str; 4] = ["sso_session", "sso_start_url", "source_profile", "credential_process"];
/// Settings that are secret.
const SECRETS: [&str; 3] = ["aws_secret_access_key", "aws_session_token", "aws_security_token"];

/// The settings of a profile.
#[derive(Default, Clone, PartialEq, Eq)]
pub(super) struct Profile {
    /// Access key and secret.
    pub keys: Option<(String, String)>,
    pub token: Option<String>,
    pub region: Option<String>,
    pub endpoint: Option<String>,
    /// Whether `AWS_PROFILE` names it.
    pub asked: bool,
    /// Where keys were looked for, and why none were found.
    pub looked: String,
    /// Whether keys may exist that cannot be used, as opposed to a missing profile.
    pub trouble: bool,
}

/// The current profile; an empty one if there are no files.
///
/// # Errors
/// [`BucketError::NoProfile`].
pub(super) fn read() -> Result<Profile, BucketError> {
    let asked = environment::text("AWS_PROFILE");
    let files =
        [File::read("AWS_SHARED_CREDENTIALS_FILE", "credentials"), File::read("AWS_CONFIG_FILE", "config")];
    of_files(asked.as_deref(), &files)
}

/// One of the two files.
struct File {
    path: String,
    text: Result<String, std::io::Error>,
}

impl File {
    fn read(variable: &str, name: &str) -> Self {
        let home = || environment::os("HOME").map(|home| PathBuf::from(home).join(".aws").join(name));
        let Some(path) = environment::os(variable).map(PathBuf::from).or_else(home) else {
            return File { path: format!("~/.aws/{name}"), text: Err(ErrorKind::NotFound.into()) };
        };
        File { path: path.display().to_string(), text: std::fs::read_to_string(&path) }
    }

    fn text(&self) -> &str {
        self.text.as_deref().unwrap_or_default()
    }

    /// Whether it exists and cannot be read.
    fn is_closed(&self) -> bool {
        // A home that is not a directory (`/dev/null`) has no files.
        let missing = [ErrorKind::NotFound, ErrorKind::NotADirectory];
        self.text.as_ref().is_err_and(|error| !missing.contains(&error.kind()))
    }

    fn state(&self) -> String {
        match &self.text {
            Ok(_) => format!("{} has no keys for it", self.path),
            Err(error) if self.is_closed() => format!("{} cannot be read: {error}", self.path),
            Err(_) => format!("{} does not exist", self.path),
        }
    }
}

fn of_files(asked: Option<&str>, files: &[File; 2]) -> Result<Profile, BucketError> {
    let name = asked.unwrap_or("default");
    let long = format!("profile {name}");
    let [credentials, config] = files;
    let mut found = section(credentials.text(), name);
    found.extend(section(config.text(), if name == "default" { name } else { &long }));
    let closed = files.iter().any(File::is_closed);
    if let (Some(_), true, false) = (asked, found.is_empty(), closed) {
        return Err(BucketError::NoProfile {
            profile: name.into(),
            credentials: credentials.path.clone(),
            config: config.path.clone(),
        });
    }
    let elsewhere = found.iter().find(|(key, _)| ELSEWHERE.contains(&key.as_str()));
    let states = match elsewhere {
        Some((key, _)) => format!(
            "{key} is not supported: set its keys in the environment, for example with `aws configure \
             export-credentials --profile {name} --format env`"
        ),
        None => files.each_ref().map(File::state).join(", "),
    };
    Ok(Profile {
        asked: asked.is_some(),
        looked: format!("profile {name}: {states}"),
        trouble: closed || elsewhere.is_some(),
        ..profile(&found)
    })
}

/// Settings by name.
type Section = Vec<(String, String)>;

/// The settings of one section of an INI file; those of nested tables are left out.
fn section(text: &str, name: &str) -> Section {
    let mut inside = false;
    let mut found = vec![];
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(head) = trimmed.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            inside = head.0.split_whitespace().eq(name.split_whitespace());
        } else if inside
            && !line.starts_with([' ', '\t', '#', ';'])
            && let Some((key, value)) = trimmed.split_once('=')
        {
            found.push((key.trim().to_ascii_lowercase(), value.trim().to_string()));
        }
    }
    found
}

fn profile(section: &Section) -> Profile {
    let secret = section.iter().filter(|(key, _)| SECRETS.contains(&key.as_str()));
    // There is one profile, whatever files it comes from.
    secrets::register_held("profile", secret.map(|(_, value)| value.as_str()));
    let get = |key: &str| {
        let found = section.iter().find(|(name, value)| name == key && !value.is_empty());
        found.map(|(_, value)| value.clone())
    };
    Profile {
        keys: get("aws_access_key_id").zip(get("aws_secret_access_key")),
        token: get("aws_session_token"),
        region: get("region"),
        endpoint: get("endpoint_url"),
        ..Profile::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_among_others() {
        let text = "# mine\n[default]\naws_access_key_id = A\naws_secret_access_key=S=1\n\n[ profile  two ]\nregion = x\n\
                    s3 =\n  endpoint_url = nested\nendpoint_url = http://h:1\n[profile three]\nregion = y";
        let found = profile(&section(text, "default"));
        assert_eq!(found.keys, Some(("A".into(), "S=1".into())));
        assert!(found.region.is_none());
        let found = profile(&section(text, "profile two"));
        assert_eq!((found.region.as_deref(), found.endpoint.as_deref()), (Some("x"), Some("http://h:1")));
        assert!(found.keys.is_none());
        assert!(section(text, "four").is_empty());
    }

    fn look(
        asked: Option<&str>,
        credentials: Result<&str, ErrorKind>,
        config: Result<&str, ErrorKind>,
    ) -> Profile {
        let file = |path: &str, text: Result<&str, ErrorKind>| File {
            path: path.into(),
            text: text.map(str::to_string).map_err(Into::into),
        };
        of_files(asked, &[file("/h/credentials", credentials), file("/h/config", config)]).unwrap()
    }

    #[test]
    fn the_reason_for_missing_keys_is_reported_with_and_without_a_name() {
        let sso = "[default]\nsso_session = s\nregion = r\n[profile work]\nsso_start_url = u";
        for asked in [None, Some("work")] {
            let found = look(asked, Err(ErrorKind::NotFound), Ok(sso));
            assert!(found.trouble && found.looked.contains("sso_"), "{}", found.looked);
            assert!(found.looked.contains("export-credentials"), "{}", found.looked);
        }
        let closed = look(None, Err(ErrorKind::PermissionDenied), Err(ErrorKind::NotADirectory));
        assert!(closed.trouble && closed.keys.is_none());
        assert!(closed.looked.contains("/h/credentials cannot be read"), "{}", closed.looked);
        assert!(closed.looked.contains("/h/config does not exist"), "{}", closed.looked);
        // It may be in the file that cannot be read.
        assert!(look(Some("work"), Err(ErrorKind::PermissionDenied), Ok("")).trouble);
        assert!(!look(None, Ok(""), Ok("[default]\nregion = r")).trouble);
    }
}

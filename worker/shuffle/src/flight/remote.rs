//! The implementation of [`Peers`] between processes: reads outputs of other workers through the client.

use std::sync::Arc;

use tally_proto::AttemptId;

use super::client::Client;
use super::remote_file::RemoteFile;
use super::remote_maps::RemoteMaps;
use crate::error::TaskError;
use crate::peers::{FileReader, MapReader, OutputLocation, Peers, ReadContext, Wanted};

impl Peers for Client {
    fn maps(
        &self,
        at: &OutputLocation,
        outputs: Vec<Wanted>,
        partition: u32,
        reading: &ReadContext,
    ) -> Result<Box<dyn MapReader>, TaskError> {
        Ok(Box::new(RemoteMaps::open(self.clone(), at.clone(), outputs, partition, reading.clone())))
    }

    fn file(
        &self,
        at: &OutputLocation,
        output: &AttemptId,
        reading: &ReadContext,
    ) -> Result<Arc<dyn FileReader>, TaskError> {
        Ok(Arc::new(RemoteFile::open(self.clone(), at.clone(), output, reading.clone())?))
    }
}

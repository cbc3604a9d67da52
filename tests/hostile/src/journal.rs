//! The coordinators' journal: its records, the state that they give, and the plans in them.

use prost::Message;
use tally_coordinator::journal::frame;
use tally_coordinator::journal::state::State;
use tally_coordinator::plan::InputPlan;
use tally_proto::v1;
use tally_proto::v1::journal_record::Record;

/// Number of ended jobs that are kept.
const HISTORY: usize = 3;

fn fold(record: &Record) {
    let mut state = State::new(HISTORY);
    state.apply(record);
    // Repeated records change nothing: a successor may read a record that its snapshot already contains.
    state.apply(record);
    let snapshot = state.snapshot();
    assert!(snapshot.history.len() <= HISTORY);
    let mut second = State::new(HISTORY);
    second.apply(&Record::Snapshot(snapshot.clone()));
    assert_eq!(second.snapshot(), snapshot, "a snapshot is complete");
    for job in snapshot.live {
        if let Some(planned) = job.planned {
            drop(InputPlan::try_from(planned));
        }
    }
}

/// Reads a record: with its frame as stored, and as the message within, because a fuzzer cannot produce the right
/// checksum.
pub fn record(bytes: &[u8]) {
    if let Ok((writer, record)) = frame::decode(bytes) {
        assert_eq!(frame::decode(&frame::encode(writer, &record)), Ok((writer, record.clone())));
        fold(&record);
    }
    if let Ok(v1::JournalRecord { record: Some(record) }) = v1::JournalRecord::decode(bytes) {
        fold(&record);
    }
}

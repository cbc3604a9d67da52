//! The coordinators' journal: its records, what they add up to, and the plans in them.

use prost::Message;
use tally_coordinator::journal::frame;
use tally_coordinator::journal::state::State;
use tally_coordinator::plan::InputPlan;
use tally_proto::v1;
use tally_proto::v1::journal_record::Record;

/// Jobs that are over and kept.
const HISTORY: usize = 3;

fn fold(record: &Record) {
    let mut state = State::new(HISTORY);
    state.apply(record);
    // Twice is no more than once: a successor may read a record that its snapshot has already.
    state.apply(record);
    let snapshot = state.snapshot();
    assert!(snapshot.history.len() <= HISTORY);
    let mut second = State::new(HISTORY);
    second.apply(&Record::Snapshot(snapshot.clone()));
    assert_eq!(second.snapshot(), snapshot, "a snapshot is all there is");
    for job in snapshot.live {
        if let Some(planned) = job.planned {
            drop(InputPlan::try_from(planned));
        }
    }
}

/// One record: with its frame as a store keeps it, and the bytes as the message within, which a fuzzer could not give
/// the right checksum.
pub fn record(bytes: &[u8]) {
    if let Ok((writer, record)) = frame::decode(bytes) {
        assert_eq!(frame::decode(&frame::encode(writer, &record)), Ok((writer, record.clone())));
        fold(&record);
    }
    if let Ok(v1::JournalRecord { record: Some(record) }) = v1::JournalRecord::decode(bytes) {
        fold(&record);
    }
}

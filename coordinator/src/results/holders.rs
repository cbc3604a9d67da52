//! Which worker holds most of what a reduce task reads, so that it can run there.
//!
//! Not here: whether it does (the scheduler).

use tally_proto::{WorkerId, v1};

use super::{Results, Winner};

/// The rows of an output by partition; none if it reported no sums.
fn rows(result: &v1::MapResult) -> impl Iterator<Item = (usize, u64)> {
    let sums = result.sums.iter();
    sums.flat_map(|sums| {
        let listed =
            sums.partitions.iter().flat_map(|run| (0..run.count).map(|at| run.first.wrapping_add(at)));
        listed.zip(&sums.rows).map(|(partition, rows)| (partition as usize, *rows))
    })
}

/// The approximate bytes of rows of an output.
fn bytes(result: &v1::MapResult, rows: u64) -> u128 {
    u128::from(rows) * u128::from(result.shuffle_bytes) / u128::from(result.partials.max(1))
}

/// By partition, the worker that holds more than half of its bytes, if there is one. A day that is not partitioned like the
/// shuffle has none: every worker holds a part of every partition.
pub fn of_most(results: &Results, mapped: &[Winner], partitions: u32) -> Vec<Option<WorkerId>> {
    // A majority vote, which needs no sum per worker and partition: only a worker with more than half can be left over.
    let mut left: Vec<Option<(&WorkerId, u128)>> = vec![None; partitions as usize];
    let parts = || {
        let outputs =
            mapped.iter().filter_map(|winner| Some((&winner.worker, results.mapped(&winner.attempt)?)));
        outputs.flat_map(|(worker, result)| {
            rows(result).map(move |(partition, rows)| (worker, partition, bytes(result, rows)))
        })
    };
    for (worker, partition, bytes) in parts() {
        let Some(left) = left.get_mut(partition) else { continue };
        *left = Some(match *left {
            Some((first, votes)) if first == worker => (first, votes + bytes),
            Some((first, votes)) if votes >= bytes => (first, votes - bytes),
            Some((_, votes)) => (worker, bytes - votes),
            None => (worker, bytes),
        });
    }
    let mut sums = vec![(0u128, 0u128); partitions as usize];
    for (worker, partition, bytes) in parts() {
        if let (Some(sum), Some(Some((most, _)))) = (sums.get_mut(partition), left.get(partition)) {
            *sum = (sum.0 + bytes, sum.1 + if *most == worker { bytes } else { 0 });
        }
    }
    let holder = |(left, (all, most)): (Option<(&WorkerId, u128)>, (u128, u128))| {
        left.filter(|_| most * 2 > all).map(|(worker, _)| worker.clone())
    };
    left.into_iter().zip(sums).map(holder).collect()
}

#[cfg(test)]
mod tests {
    use tally_proto::v1::task_result::Result as Done;
    use tally_proto::{AttemptId, JobId, StageId, TaskId};

    use super::*;

    #[test]
    fn only_a_worker_with_more_than_half_of_the_bytes_is_named() {
        let mut results = Results::default();
        let mut mapped = vec![];
        // Worker, bytes of a row, and rows by partition.
        for (index, (worker, bytes, rows)) in (0u32..).zip([
            ("a", 1, vec![9, 5, 1, 0]),
            ("b", 1, vec![3, 5, 1, 0]),
            ("c", 10, vec![0, 0, 1, 0]),
            ("b", 1, vec![3, 0, 0, 0]),
            ("a", 1, vec![0, 1, 0, 0]),
        ]) {
            let task = TaskId { job: JobId::parse("j").unwrap(), stage: StageId(0), index };
            let attempt = AttemptId { task, attempt: 0 };
            let run = v1::Run { first: 0, count: 4 };
            let partials: u64 = rows.iter().sum();
            let sums = v1::PartitionSums { partitions: vec![run], checksums: vec![0; 4], rows };
            let shuffle_bytes = partials * bytes;
            let result = v1::MapResult { partials, shuffle_bytes, sums: Some(sums), ..Default::default() };
            results.keep(&attempt, v1::TaskResult { result: Some(Done::Map(result)), usage: None }).unwrap();
            mapped.push(Winner { attempt, worker: WorkerId::parse(worker).unwrap() });
        }
        let found = of_most(&results, &mapped, 5);
        let found: Vec<_> = found.iter().map(|holder| holder.as_ref().map(WorkerId::as_str)).collect();
        assert_eq!(found, [Some("a"), Some("a"), Some("c"), None, None]);
        assert_eq!(of_most(&results, &mapped[..2], 2)[1], None, "half is not most");
        assert_eq!(of_most(&Results::default(), &mapped, 2), [None, None]);
    }
}

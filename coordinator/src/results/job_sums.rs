//! What the results of the outputs that count add up to: the totals, checksums and row groups of the day, and the amounts of
//! a job.
//!
//! Not here: which results are kept, and whether they contradict each other (`results`).

use tally_dataset::Totals;
use tally_proto::v1;

use super::{Amount, Results, Winner, content, rows_of};
use crate::job::{MAP, REDUCE};
use crate::plan::files::Encoded;

impl Results {
    /// The sums of all map outputs by partition; `None` if one of them did not report its sums.
    pub fn partition_sums(&self, mapped: &[Winner], partitions: u32) -> Option<Vec<v1::Sums>> {
        let mut all = vec![v1::Sums::default(); partitions as usize];
        for winner in mapped {
            let sums = self.map.get(&winner.attempt)?.sums.as_ref()?;
            let listed =
                sums.partitions.iter().flat_map(|run| (0..run.count).map(|at| run.first.wrapping_add(at)));
            for ((partition, rows), checksum) in listed.zip(&sums.rows).zip(&sums.checksums) {
                let sum = all.get_mut(partition as usize)?;
                sum.rows = sum.rows.wrapping_add(*rows);
                sum.checksum = sum.checksum.wrapping_add(*checksum);
            }
        }
        Some(all)
    }

    /// The checksum of all rows, if every reduce task reported its own.
    pub fn checksum(&self, reduced: &[Winner]) -> Option<u64> {
        let checksum = |winner: &Winner| Some(content(self.reduce.get(&winner.attempt)?)?.1);
        reduced.iter().map(checksum).try_fold(0u64, |all, sum| Some(all.wrapping_add(sum?)))
    }

    /// Nulls by column of all rows, if every reduce task counted its own; there are that many columns.
    pub fn nulls(&self, reduced: &[Winner], columns: usize) -> Option<Vec<u64>> {
        let mut all = vec![0u64; columns];
        for winner in reduced {
            let nulls = &self.reduce.get(&winner.attempt)?.nulls;
            if nulls.len() != columns {
                return None;
            }
            all.iter_mut().zip(nulls).for_each(|(sum, nulls)| *sum = sum.wrapping_add(*nulls));
        }
        Some(all)
    }

    /// The job's totals, with that many counters, from all reduce outputs.
    pub fn totals(&self, reduced: &[Winner], counters: usize) -> Totals {
        let mut totals = Totals::zero(counters);
        let results = reduced.iter().filter_map(|winner| self.reduce.get(&winner.attempt));
        for part in results.filter_map(|result| result.totals.as_ref()) {
            totals += &Totals { rows: part.rows, counters: part.counters(counters) };
        }
        totals
    }

    /// The counts of the objectives, from all reduce outputs; `None` if an output has another number of counts. Workers of
    /// earlier releases do not count.
    pub fn objectives(&self, reduced: &[Winner], counts: usize) -> Option<Vec<u64>> {
        let mut all = vec![0u64; counts];
        for winner in reduced {
            let result =
                self.reduce.get(&winner.attempt).filter(|result| result.objectives.len() == counts)?;
            all.iter_mut().zip(&result.objectives).for_each(|(all, count)| *all = all.saturating_add(*count));
        }
        Some(all)
    }

    /// All encoded row groups, in the order of the reduce tasks.
    pub fn row_groups(&self, reduced: &[Winner]) -> Vec<Encoded> {
        let mut groups = vec![];
        for winner in reduced {
            let Some(result) = self.reduce.get(&winner.attempt) else { continue };
            let task = winner.attempt.task.index;
            groups.extend((0..).zip(&result.row_group_rows).map(|(row_group, &rows)| Encoded {
                task,
                row_group,
                rows,
            }));
        }
        groups
    }

    /// The rows and bytes that a stage's winners reported.
    pub fn amount(&self, stage: u32, winners: &[Winner]) -> Amount {
        let mut sum = Amount::default();
        for winner in winners {
            let attempt = &winner.attempt;
            let (rows, bytes) = match stage {
                MAP => self.map.get(attempt).map(|r| (r.rows, r.bytes_read)),
                REDUCE => self.reduce.get(attempt).map(|r| (rows_of(r), r.bytes)),
                _ => self.write.get(attempt).map(|r| (r.rows, r.bytes)),
            }
            .unwrap_or_default();
            sum.rows += rows;
            sum.bytes += bytes;
        }
        sum
    }

    /// Bytes of outputs that workers wrote to disk.
    pub fn spilled_bytes(&self, mapped: &[Winner], reduced: &[Winner]) -> u64 {
        let mapped = mapped.iter().filter_map(|winner| self.map.get(&winner.attempt));
        let reduced = reduced.iter().filter_map(|winner| self.reduce.get(&winner.attempt));
        let spilled = mapped.map(|result| result.spilled_bytes);
        spilled.chain(reduced.map(|result| result.spilled_bytes)).fold(0, u64::saturating_add)
    }

    /// Bytes that the map tasks wrote to the shuffle.
    pub fn shuffle_bytes(&self, mapped: &[Winner]) -> u64 {
        mapped.iter().filter_map(|winner| self.map.get(&winner.attempt)).map(|r| r.shuffle_bytes).sum()
    }

    /// Bytes of the shuffle that reduce tasks received from other workers.
    pub fn network_bytes(&self, reduced: &[Winner]) -> u64 {
        let results = reduced.iter().filter_map(|winner| self.reduce.get(&winner.attempt));
        results.fold(0, |all, result| all.saturating_add(result.network_bytes))
    }
}

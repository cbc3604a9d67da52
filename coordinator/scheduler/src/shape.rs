//! The stages of a job and their dependencies, which are fixed when the job is submitted.
//!
//! Not here: the tasks of a stage. A stage is planned when its inputs exist.

use tally_proto::ids::StageId;

/// One stage of a job.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StageShape {
    /// The earlier stages that this stage reads. All of their outputs must exist before one of its tasks starts.
    pub reads: Vec<StageId>,
}

/// The validated stages of a job. Each reads only earlier stages, so there is no cycle.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobShape(Vec<StageShape>);

/// Invalid stages.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShapeError {
    /// No stage.
    #[error("a job needs at least one stage")]
    Empty,
    /// A stage reads itself, a later one, or one that does not exist.
    #[error("stage {stage} reads stage {read}: a stage reads only stages before it")]
    ReadsAhead {
        /// The reader.
        stage: usize,
        /// The stage that it reads.
        read: u32,
    },
}

impl JobShape {
    /// Validates the stages, given in order from stage 0.
    ///
    /// # Errors
    /// [`ShapeError`].
    pub fn new(stages: Vec<StageShape>) -> Result<Self, ShapeError> {
        if stages.is_empty() {
            return Err(ShapeError::Empty);
        }
        for (stage, shape) in stages.iter().enumerate() {
            if let Some(read) = shape.reads.iter().find(|read| read.0 as usize >= stage) {
                return Err(ShapeError::ReadsAhead { stage, read: read.0 });
            }
        }
        Ok(Self(stages))
    }

    /// A job in which every stage reads the one before it.
    ///
    /// # Errors
    /// [`ShapeError::Empty`] for no stages.
    pub fn chain(stages: u32) -> Result<Self, ShapeError> {
        let reads = |stage: u32| stage.checked_sub(1).map(StageId).into_iter().collect();
        Self::new((0..stages).map(|stage| StageShape { reads: reads(stage) }).collect())
    }

    /// The stages, from stage 0.
    pub fn stages(&self) -> &[StageShape] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stage_reads_only_stages_before_it() {
        let reads = |list: &[u32]| StageShape { reads: list.iter().copied().map(StageId).collect() };
        assert_eq!(JobShape::new(vec![]), Err(ShapeError::Empty));
        assert_eq!(JobShape::chain(0), Err(ShapeError::Empty));
        let ahead = |stage, read| Err(ShapeError::ReadsAhead { stage, read });
        assert_eq!(JobShape::new(vec![reads(&[0])]), ahead(0, 0));
        assert_eq!(JobShape::new(vec![reads(&[]), reads(&[0, 2])]), ahead(1, 2));
        let job = JobShape::new(vec![reads(&[]), reads(&[0]), reads(&[1])]);
        assert_eq!(job, JobShape::chain(3));
    }
}

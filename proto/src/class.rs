//! How the scheduler reacts to an error, and the rows of the tables of errors.
//!
//! Not here: the tables (of the errors of a task, and of those that the coordinator finds), and the page that documents both.

/// How the scheduler reacts to an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The task is retried, on another worker if there is one. The failure counts: the fourth one of a task fails the job.
    Elsewhere,
    /// The task returns to the queue and is retried later or on another worker. The failure does not count. The job fails
    /// if all workers refuse the task for `no_workers_timeout`.
    AfterWaiting,
    /// The task that made the input runs again, and then this task.
    InputAgain,
    /// The job fails.
    Fatal,
    /// No reaction: the attempt was cancelled.
    Stopped,
}

impl std::fmt::Display for Class {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Class::Elsewhere => "retry elsewhere",
            Class::AfterWaiting => "retry after waiting",
            Class::InputAgain => "retry after its input is made again",
            Class::Fatal => "fatal",
            Class::Stopped => "none",
        })
    }
}

/// A row of a table of errors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The error's name in the code.
    pub error: &'static str,
    /// The reaction.
    pub class: Class,
    /// What happened, for display.
    pub what: &'static str,
}

/// The differences between a table of errors and its page in Markdown, for the tests of the tables: rows of either that the
/// other does not have. `head` is the beginning of the table's first line.
pub fn differences(rows: &[Row], page: &str, head: &str) -> Vec<String> {
    let line = |row: &Row| format!("| `{}` | {} | {} |", row.error, row.what, row.class);
    let expected: Vec<String> = rows.iter().map(line).collect();
    let Some((_, table)) = page.split_once(head) else {
        return vec![format!("no table begins with {head:?}")];
    };
    let documented: Vec<&str> = table.lines().skip(2).take_while(|line| line.starts_with('|')).collect();
    let missing = expected.iter().filter(|line| !documented.contains(&line.as_str()));
    let unknown = documented.iter().filter(|line| !expected.iter().any(|known| known == *line));
    let missing = missing.map(|line| format!("not documented: {line}"));
    missing.chain(unknown.map(|line| format!("not in the code: {line}"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_either_side_without_the_other_are_found() {
        let rows = [
            Row { error: "A", class: Class::Fatal, what: "a" },
            Row { error: "B", class: Class::Elsewhere, what: "b" },
        ];
        let page = |rows: &str| {
            format!("text\n\n| error | what | class |\n|---|---|---|\n{rows}\n| `C` | after | fatal |\n")
        };
        let both = page("| `B` | b | retry elsewhere |\n| `A` | a | fatal |\n");
        assert_eq!(differences(&rows, &both, "| error |"), [""; 0]);
        let one = page("| `A` | a | fatal |\n| `B` | b | fatal |\n");
        let found = differences(&rows, &one, "| error |");
        assert_eq!(
            found,
            ["not documented: | `B` | b | retry elsewhere |", "not in the code: | `B` | b | fatal |"]
        );
        assert_eq!(differences(&rows, "", "| error |"), ["no table begins with \"| error |\""]);
    }
}

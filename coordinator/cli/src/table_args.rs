//! The roots of the input tables: `--table NAME=URL`, and a separate option for each table of the default dataset.
//!
//! Not here: the tables of a dataset (`tally_dataset`).

use clap::builder::NonEmptyStringValueParser;
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};
use tally_dataset::{Dataset, TableSpec, registry};

use crate::Stop;

const TABLE: &str = "table";

/// The root of a table, from the command line.
#[derive(Debug, Clone)]
struct Root {
    table: String,
    url: String,
    /// The option, for messages.
    option: String,
}

/// The roots of tables from the command line.
#[derive(Debug, Default)]
pub struct TableArgs(Vec<Root>);

/// The tables that have options of their own.
fn named_tables() -> Vec<TableSpec> {
    registry::datasets().next().map(|dataset| dataset.tables().to_vec()).unwrap_or_default()
}

/// The option that gives the root of a table, as `--help` shows it.
pub(crate) fn shown_option(table: &str) -> String {
    match named_tables().iter().any(|named| named.name == table) {
        true => format!("--{} URL", option_of(table)),
        false => format!("--{TABLE} {table}=URL"),
    }
}

/// The name of a table's own option.
fn option_of(table: &str) -> String {
    table.replace('_', "-")
}

/// The value of `--table` has another form.
#[derive(Debug, thiserror::Error)]
#[error("write NAME=URL")]
struct InvalidTable;

fn parse_table(text: &str) -> Result<(String, String), InvalidTable> {
    match text.split_once('=') {
        Some((name, url)) if !name.is_empty() && !url.is_empty() => Ok((name.into(), url.into())),
        _ => Err(InvalidTable),
    }
}

impl Args for TableArgs {
    fn augment_args(command: Command) -> Command {
        let own = named_tables().into_iter().map(|table| {
            Arg::new(table.name)
                .long(option_of(table.name))
                .value_name("URL")
                .value_parser(NonEmptyStringValueParser::new())
                .help(table.help)
        });
        let any = Arg::new(TABLE)
            .long(TABLE)
            .value_name("NAME=URL")
            .action(ArgAction::Append)
            .value_parser(parse_table)
            .help("Root of the input table with that name; may be repeated");
        command.args(own).arg(any)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for TableArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let own = named_tables().into_iter().filter_map(|table| {
            let url = matches.get_one::<String>(table.name)?.clone();
            Some(Root { table: table.name.into(), url, option: format!("--{}", option_of(table.name)) })
        });
        let any = matches.get_many::<(String, String)>(TABLE).into_iter().flatten();
        let any = any.map(|(table, url)| Root {
            table: table.clone(),
            url: url.clone(),
            option: format!("--{TABLE} {table}"),
        });
        Ok(TableArgs(own.chain(any).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl TableArgs {
    /// The given roots of a dataset's tables, in its order.
    ///
    /// # Errors
    /// A root of a table that the dataset does not have, or two roots of one table.
    pub(crate) fn roots(&self, dataset: &dyn Dataset) -> Result<Vec<Option<String>>, Stop> {
        let (name, tables) = (dataset.name(), dataset.tables());
        if let Some(root) = self.0.iter().find(|root| tables.iter().all(|table| table.name != root.table)) {
            let names: Vec<_> = tables.iter().map(|table| table.name).collect();
            let (option, names) = (&root.option, names.join(", "));
            return Err(Stop::Usage(format!("{option}: {name} has no such table; its tables are: {names}")));
        }
        tables.iter().map(|table| self.root(table)).collect()
    }

    fn root(&self, table: &TableSpec) -> Result<Option<String>, Stop> {
        let mut given = self.0.iter().filter(|root| root.table == table.name);
        match (given.next(), given.next()) {
            (Some(first), Some(second)) => {
                let (first, second) = (&first.option, &second.option);
                let name = table.name;
                Err(Stop::Usage(format!(
                    "{first} and {second} both give the root of the table {name}: give one"
                )))
            }
            (first, _) => Ok(first.map(|root| root.url.clone())),
        }
    }
}

#[cfg(test)]
mod tests {
    use tally_dataset::addon_aggregates::AddonAggregates;

    use super::*;

    fn roots(args: &[&str]) -> Result<Vec<Option<String>>, String> {
        let command = TableArgs::augment_args(Command::new("test").no_binary_name(true));
        let matches = command.try_get_matches_from(args).map_err(|e| e.to_string())?;
        let tables = TableArgs::from_arg_matches(&matches).map_err(|e| e.to_string())?;
        tables.roots(&AddonAggregates::new()).map_err(|stop| stop.report().0)
    }

    #[test]
    fn a_root_is_given_by_either_option() {
        let some = |roots: [&str; 2]| roots.map(|root| Some(root.to_string())).to_vec();
        assert_eq!(roots(&[]).unwrap(), [None, None]);
        assert_eq!(roots(&["--addons", "/a"]).unwrap(), [Some("/a".to_string()), None]);
        let both = ["--table", "main_summary=s3://b/m?x=1", "--table", "addons=/a"];
        assert_eq!(roots(&both).unwrap(), some(["/a", "s3://b/m?x=1"]));
        assert_eq!(roots(&["--main-summary", "/m", "--table", "addons=/a"]).unwrap(), some(["/a", "/m"]));
    }

    #[test]
    fn what_makes_no_sense_is_refused_with_the_tables_named() {
        let check = |args: &[&str], words: &[&str]| {
            let error = roots(args).unwrap_err();
            assert!(words.iter().all(|word| error.contains(word)), "{error}");
        };
        check(&["--table", "main=/m"], &["--table main", "addons, main_summary"]);
        check(&["--addons", "/a", "--table", "addons=/b"], &["--addons and --table addons"]);
        check(&["--table", "addons=/a", "--table", "addons=/b"], &["the table addons: give one"]);
        check(&["--table", "addons"], &["NAME=URL"]);
        check(&["--table", "addons="], &["NAME=URL"]);
    }
}

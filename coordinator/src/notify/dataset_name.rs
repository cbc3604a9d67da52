//! The names of tables in OpenLineage, by its naming rules: a namespace for the store, and a name in it. Pure.
//!
//! Not here: events (`lineage`).

use tally_common::stores::urls;

/// A table's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatasetName {
    /// The store: `s3://BUCKET`, `gs://BUCKET`, `wasbs://CONTAINER@ACCOUNT.dfs.core.windows.net`, `file`.
    pub namespace: String,
    /// The key or path of the table's root.
    pub name: String,
}

/// The name of the table at a URL or path. `account` is the storage account of `az://` URLs. If it is unknown, their
/// namespace is `az://CONTAINER`.
pub fn dataset_name(url: &str, account: Option<&str>) -> DatasetName {
    if urls::is_local(url) {
        let path = url.strip_prefix("file://").unwrap_or(url);
        return DatasetName { namespace: "file".into(), name: path.into() };
    }
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let (bucket, key) = rest.split_once('/').unwrap_or((rest, ""));
    let namespace = match (scheme, account) {
        ("az" | "azure", Some(account)) => format!("wasbs://{bucket}@{account}.dfs.core.windows.net"),
        ("azure", None) => format!("az://{bucket}"),
        ("s3a", _) => format!("s3://{bucket}"),
        _ => format!("{scheme}://{bucket}"),
    };
    DatasetName { namespace, name: key.trim_end_matches('/').into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_rules_of_openlineage() {
        let check = |url: &str, account: Option<&str>, namespace: &str, name: &str| {
            let expect = DatasetName { namespace: namespace.into(), name: name.into() };
            assert_eq!(dataset_name(url, account), expect, "{url}");
        };
        check("/data/addons/v2", None, "file", "/data/addons/v2");
        check("file:///data/addons", None, "file", "/data/addons");
        check("s3://bucket/addons/v2", Some("unused"), "s3://bucket", "addons/v2");
        check("s3a://bucket/addons/", None, "s3://bucket", "addons");
        check("gs://bucket/x", None, "gs://bucket", "x");
        check("az://c/x", Some("acc"), "wasbs://c@acc.dfs.core.windows.net", "x");
        check("azure://c/x", None, "az://c", "x");
    }
}

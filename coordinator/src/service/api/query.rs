//! The parameters of a request: those in the query, and the name of a job in the path. Anything that the API does not know
//! is refused, so that a misspelled parameter is not ignored.
//!
//! Not here: what the values mean (`jobs`).

use std::collections::BTreeMap;
use std::str::FromStr;

use axum::extract::{FromRequestParts, Path};
use chrono::NaiveDate;
use tally_proto::v1;
use tonic::codegen::http::request::Parts;
use url::form_urlencoded;

use super::problem::Problem;
use crate::dates::parse_date;

/// The maximum number of entries in a page. Answers are built in memory, and gRPC is there for larger pages.
const MAX_PAGE_SIZE: u32 = 200;

/// The parameters in a query.
#[derive(Debug)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    /// The parameters of a request, of which only `known` may be given, each once.
    pub(super) fn of(parts: &Parts, known: &[&str]) -> Result<Self, Problem> {
        let mut values = BTreeMap::new();
        let query = parts.uri.query().unwrap_or_default();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let Some((name, value)) = form_urlencoded::parse(pair.as_bytes()).next() else { continue };
            if !known.contains(&&*name) {
                let known = if known.is_empty() { "none".into() } else { known.join(", ") };
                return Err(Problem::invalid(format!("unknown parameter {name:.40}: this path has {known}")));
            }
            let twice = values.contains_key(&*name);
            if !pair.contains('=') || twice {
                return Err(Problem::invalid(format!("{name}: write {name}=VALUE, once")));
            }
            values.insert(name.into_owned(), value.into_owned());
        }
        Ok(Query(values))
    }

    /// A number; the default without the parameter.
    pub(super) fn number<T: FromStr + Default>(&self, name: &str) -> Result<T, Problem> {
        let Some(value) = self.0.get(name) else { return Ok(T::default()) };
        value.parse().map_err(|_| Problem::invalid(format!("{name}: give a number")))
    }

    /// A text.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }

    /// A date.
    pub(super) fn date(&self, name: &str) -> Result<Option<NaiveDate>, Problem> {
        let read = |text| {
            parse_date(text)
                .ok_or_else(|| Problem::invalid(format!("{name}: write YYYYMMDD, for example 20170227")))
        };
        self.text(name).map(read).transpose()
    }

    /// The page of a list.
    pub(super) fn page(parts: &Parts) -> Result<tonic::Request<v1::ListRequest>, Problem> {
        let mut query = Query::of(parts, &["page_size", "page_token"])?;
        let page_size = query.number("page_size")?;
        if page_size > MAX_PAGE_SIZE {
            return Err(Problem::invalid(format!("page_size: give a number up to {MAX_PAGE_SIZE}")));
        }
        let page_token = query.0.remove("page_token").unwrap_or_default();
        Ok(tonic::Request::new(v1::ListRequest { page_size, page_token }))
    }
}

/// The job that a path names.
pub(super) struct JobName(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for JobName {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(name)) => Ok(JobName(name)),
            Err(_) => Err(Problem::invalid("job: the name in the path is not UTF-8".into())),
        }
    }
}

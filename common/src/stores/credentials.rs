//! Fetches credentials. The first fetch is quick, so that a process without credentials reports soon what is missing.
//! Later fetches, which renew the credentials of a running job, are patient.
//!
//! For S3 the first available source counts: keys in the environment; a web identity (IRSA); a container's endpoint (ECS,
//! EKS); a profile of AWS's files; the instance's metadata. The other services use what `object_store` finds. Not here:
//! AWS's files (`profile`), the other settings of a client (`settings`).

use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey as Key, AwsCredential, AwsCredentialProvider};
use object_store::{ClientOptions, RetryConfig};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::no_credentials::{HAD, NoCredentials, S3_RENEWED};
use super::profile::{self, Profile};
use super::transient::{causes_of, is_refusal, says_status};
use super::{BucketError, Service, explain};
use crate::environment;
use crate::retry::RetryPolicy;

/// The time limit of all requests for the first credentials.
const FIRST: Duration = Duration::from_secs(4);
/// How the first credentials are requested again.
const FIRST_RETRY: RetryPolicy =
    RetryPolicy::listed(&[200, 500]).with_max_retries(u32::MAX).with_deadline(FIRST);
/// The time limits of one request for credentials, and of its connection to a local or a remote service.
const ANSWER: Duration = Duration::from_secs(3);
const CONNECT: Duration = Duration::from_secs(1);
const CONNECT_FAR: Duration = Duration::from_secs(3);
/// How long a failure is returned without another request: many requests start at the same time.
const FAILURE_TTL: Duration = Duration::from_secs(3);
/// The clients renew credentials at least 4 minutes before they expire. So the current ones are valid for longer than
/// this after they were last returned.
const VALID: Duration = Duration::from_secs(3 * 60);
/// How long the current credentials are used without another request after a failed renewal.
const RENEWAL_PAUSE: Duration = Duration::from_secs(10);
/// How credentials are renewed after failures.
const RENEW_RETRY: RetryPolicy = RetryPolicy::listed(&[200, 1000, 3000, 8000, 15_000]);
/// The interval between checks of a profile's file.
const CHECK_INTERVAL: Duration = Duration::from_secs(1);
const METADATA: &str = "http://169.254.169.254";

/// Temporary credentials of a service.
#[derive(Debug)]
pub(super) struct Fetched<C> {
    service: Service,
    inner: Arc<dyn CredentialProvider<Credential = C>>,
    source: Source,
    /// Whether this process has received credentials of the service.
    had: &'static AtomicBool,
    state: tokio::sync::Mutex<State<C>>,
}

/// Where credentials are requested, for errors.
#[derive(Debug)]
pub(super) struct Source {
    /// The text before the reason of a failure.
    pub(super) asked: String,
    /// The text after the reason.
    pub(super) advice: &'static str,
    /// Whether nothing is configured and only the instance's metadata may have credentials. If it does not answer there
    /// are none.
    pub(super) last_resort: bool,
}

#[derive(Debug)]
struct State<C> {
    /// The last credentials, and when they were returned.
    good: Option<(Instant, Arc<C>)>,
    failed: Option<(Instant, NoCredentials)>,
}

impl<C: Send + Sync + std::fmt::Debug + 'static> Fetched<C> {
    pub(super) fn provider(
        service: Service,
        inner: &Arc<dyn CredentialProvider<Credential = C>>,
        source: Source,
    ) -> Arc<dyn CredentialProvider<Credential = C>> {
        Arc::new(Self::with(service, inner, source, &HAD[service as usize]))
    }

    fn with(
        service: Service,
        inner: &Arc<dyn CredentialProvider<Credential = C>>,
        source: Source,
        had: &'static AtomicBool,
    ) -> Self {
        let state = tokio::sync::Mutex::new(State { good: None, failed: None });
        Fetched { service, inner: inner.clone(), source, had, state }
    }

    async fn once(&self, time: Duration) -> Result<Arc<C>, Failed> {
        let (why, answer) = match timeout(time, self.inner.get_credential()).await {
            Ok(Ok(credential)) => return Ok(credential),
            Ok(Err(error)) => (explain(&error), Answer::of(&error)),
            Err(_) => ("no answer in time".to_string(), Answer::Missing),
        };
        let Source { asked, advice, last_resort } = &self.source;
        let why = format!("{asked}: {why}. {advice}");
        let refused = answer == Answer::Refusal;
        let hopeless = refused || *last_resort && answer == Answer::Missing;
        let never = hopeless && !self.had.load(Ordering::Relaxed);
        Err(Failed { why: NoCredentials { why, never }, refused })
    }

    /// Requests credentials until there are some, the service refuses, or the policy gives up.
    async fn retried(&self, policy: RetryPolicy) -> Result<Arc<C>, Failed> {
        let mut retries = policy.start();
        loop {
            let result = self.once(retries.time_left().min(FIRST)).await;
            if !matches!(result, Err(Failed { refused: false, .. })) || !retries.wait().await {
                return result;
            }
        }
    }

    /// Returns credentials. One task at a time requests them; tasks that wait for it share its result.
    async fn get(&self) -> Result<Arc<C>, NoCredentials> {
        let mut state = self.state.lock().await;
        let current =
            state.good.as_ref().filter(|(at, _)| at.elapsed() < VALID).map(|(_, good)| good.clone());
        let remembered = if current.is_some() { RENEWAL_PAUSE } else { FAILURE_TTL };
        if let Some((_, why)) = state.failed.as_ref().filter(|(at, _)| at.elapsed() < remembered) {
            return current.ok_or_else(|| why.clone());
        }
        let result = match (&current, self.had.load(Ordering::Relaxed)) {
            (Some(_), _) => self.once(FIRST).await,
            // The service may be away for a while.
            (None, true) => self.retried(RENEW_RETRY).await,
            // The service may be busy with many processes that start at the same time.
            (None, false) => self.retried(FIRST_RETRY).await,
        };
        match result {
            Ok(credential) => {
                self.had.store(true, Ordering::Relaxed);
                *state = State { good: Some((Instant::now(), credential.clone())), failed: None };
                Ok(credential)
            }
            Err(Failed { why, .. }) => {
                if self.had.load(Ordering::Relaxed) {
                    tracing::warn!(%why, current = current.is_some(), "credentials cannot be renewed");
                }
                state.failed = Some((Instant::now(), why.clone()));
                current.ok_or(why)
            }
        }
    }
}

/// A failed request for credentials.
#[derive(Debug)]
struct Failed {
    why: NoCredentials,
    /// Whether the service refused, so that the same request fails again.
    refused: bool,
}

/// What a failed request for credentials says about the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// It refuses the request.
    Refusal,
    /// It exists: it answered, or refused the connection, as a service that restarts does.
    Failure,
    /// It may not exist.
    Missing,
}

impl Answer {
    fn of(error: &object_store::Error) -> Self {
        if is_refusal(error) {
            return Answer::Refusal;
        }
        let exists = causes_of(error).any(|cause| {
            cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == ErrorKind::ConnectionRefused)
                || says_status(&cause.to_string())
        });
        if exists { Answer::Failure } else { Answer::Missing }
    }
}

#[async_trait]
impl<C: Send + Sync + std::fmt::Debug + 'static> CredentialProvider for Fetched<C> {
    type Credential = C;

    async fn get_credential(&self) -> object_store::Result<Arc<C>> {
        let store = self.service.scheme();
        self.get().await.map_err(|why| object_store::Error::Generic { store, source: Box::new(why) })
    }
}

/// The options of requests for credentials to a local service.
pub(super) fn quick(options: ClientOptions) -> ClientOptions {
    options.with_connect_timeout(CONNECT).with_timeout(ANSWER)
}

/// No retries by the client: [`Fetched`] retries.
pub(super) fn one_try() -> RetryConfig {
    RetryConfig { max_retries: 0, retry_timeout: ANSWER, ..RetryConfig::default() }
}

/// The sources of S3's credentials.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum SourceKind {
    Keys,
    WebIdentity,
    Container,
    Profile,
    Instance,
}

/// The first available source, and why those before it are not available.
fn choose(given: impl Fn(Key) -> bool, profile: &Profile) -> (SourceKind, Vec<String>) {
    let mut tried = vec![];
    if given(Key::AccessKeyId) || given(Key::SecretAccessKey) {
        return (SourceKind::Keys, tried);
    }
    tried.push("environment: AWS_ACCESS_KEY_ID is not set".to_string());
    match (given(Key::WebIdentityTokenFile), given(Key::RoleArn)) {
        (true, true) => return (SourceKind::WebIdentity, tried),
        (true, false) => tried.push("web identity: AWS_ROLE_ARN is not set".into()),
        _ => tried.push("web identity: AWS_WEB_IDENTITY_TOKEN_FILE is not set".into()),
    }
    let full = given(Key::ContainerCredentialsFullUri);
    if given(Key::ContainerCredentialsRelativeUri) || (full && given(Key::ContainerAuthorizationTokenFile)) {
        return (SourceKind::Container, tried);
    }
    tried.push(match full {
        true => "container endpoint: AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE is not set".into(),
        false => {
            "container endpoint: AWS_CONTAINER_CREDENTIALS_RELATIVE_URI and _FULL_URI are not set".into()
        }
    });
    if profile.keys.is_some() {
        return (SourceKind::Profile, tried);
    }
    tried.push(profile.looked.clone());
    (SourceKind::Instance, tried)
}

const ADVICE: &str = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or the variables of a web identity \
                      or container";

/// S3's credentials; `None` if the builder has keys. The builder is complete except for its time limits.
///
/// # Errors
/// [`BucketError`]: there are no credentials, or a setting is not valid.
pub(super) fn s3(
    builder: &AmazonS3Builder,
    options: ClientOptions,
    profile: &Profile,
) -> Result<Option<AwsCredentialProvider>, BucketError> {
    let value = |key: Key| builder.get_config_value(&key).filter(|value| !value.is_empty());
    let (kind, tried) = choose(|key| value(key).is_some(), profile);
    let missing =
        |last: &str| format!("there are no credentials for S3. Tried: {}; {last}", tried.join("; "));
    let asked = match kind {
        SourceKind::Keys => return Ok(None),
        SourceKind::Profile => {
            S3_RENEWED.store(true, Ordering::Relaxed);
            return Ok(ProfileKeys::new(profile).map(|keys| Arc::new(keys) as _));
        }
        SourceKind::WebIdentity => format!(
            "no credentials for S3 by web identity (AWS_WEB_IDENTITY_TOKEN_FILE {}, AWS_ROLE_ARN {})",
            value(Key::WebIdentityTokenFile).unwrap_or_default(),
            value(Key::RoleArn).unwrap_or_default()
        ),
        SourceKind::Container => "no credentials for S3 from the container endpoint".into(),
        SourceKind::Instance => {
            let off = environment::text("AWS_EC2_METADATA_DISABLED");
            if off.is_some_and(|off| off.eq_ignore_ascii_case("true")) {
                let last = missing("instance metadata: AWS_EC2_METADATA_DISABLED is set");
                return Err(NoCredentials { why: format!("{last}. {ADVICE}"), never: true }.into());
            }
            if profile.asked && profile.trouble {
                return Err(BucketError::Profile(profile.looked.clone()));
            }
            let endpoint = value(Key::MetadataEndpoint).unwrap_or_else(|| METADATA.into());
            missing(&format!("instance metadata at {endpoint}"))
        }
    };
    let advice = match kind {
        SourceKind::WebIdentity => "Check the role, its trust policy and the token file",
        SourceKind::Container => {
            "Check AWS_CONTAINER_CREDENTIALS_RELATIVE_URI, or _FULL_URI and its token file"
        }
        _ => ADVICE,
    };
    let connect = if kind == SourceKind::WebIdentity { CONNECT_FAR } else { CONNECT };
    let options = quick(options).with_connect_timeout(connect);
    let store = builder.clone().with_retry(one_try()).with_client_options(options).build()?;
    let source = Source { asked, advice, last_resort: kind == SourceKind::Instance };
    Ok(Some(Fetched::provider(Service::S3, store.credentials(), source)))
}

/// The keys of a profile, which other programs may change in its file.
#[derive(Debug)]
struct ProfileKeys(Mutex<(Instant, Arc<AwsCredential>)>);

impl ProfileKeys {
    fn new(profile: &Profile) -> Option<Self> {
        Some(ProfileKeys(Mutex::new((Instant::now(), Arc::new(keys_of(profile)?)))))
    }
}

fn keys_of(profile: &Profile) -> Option<AwsCredential> {
    let (key_id, secret_key) = profile.keys.clone()?;
    Some(AwsCredential { key_id, secret_key, token: profile.token.clone() })
}

#[async_trait]
impl CredentialProvider for ProfileKeys {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let mut current = self.0.lock();
        if current.0.elapsed() >= CHECK_INTERVAL {
            current.0 = Instant::now();
            // A file that is being written may have no keys for a moment.
            if let Some(keys) = profile::read().ok().as_ref().and_then(keys_of) {
                current.1 = Arc::new(keys);
            }
        }
        Ok(current.1.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stores::is_transient;

    #[test]
    fn the_first_complete_source_is_chosen_and_the_others_are_reported() {
        let chosen = |given: &[Key], keys: bool| {
            let keys = keys.then(|| ("a".to_string(), "b".to_string()));
            let profile = Profile { keys, looked: "profile p: none".into(), ..Profile::default() };
            choose(|key| given.contains(&key), &profile)
        };
        assert_eq!(
            chosen(&[Key::AccessKeyId, Key::WebIdentityTokenFile, Key::RoleArn], true).0,
            SourceKind::Keys
        );
        assert_eq!(chosen(&[Key::WebIdentityTokenFile, Key::RoleArn], true).0, SourceKind::WebIdentity);
        assert_eq!(chosen(&[Key::ContainerCredentialsRelativeUri], true).0, SourceKind::Container);
        assert_eq!(chosen(&[], true).0, SourceKind::Profile);
        let (kind, tried) = chosen(&[Key::WebIdentityTokenFile, Key::ContainerCredentialsFullUri], false);
        let text = tried.join("; ");
        assert_eq!(kind, SourceKind::Instance);
        for part in [
            "AWS_ACCESS_KEY_ID is not set",
            "AWS_ROLE_ARN is not set",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE is not set",
            "profile p: none",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    /// Returns credentials while `well` is set, and is away or refuses otherwise.
    #[derive(Debug, Default)]
    struct Moody {
        well: AtomicBool,
        refuses: AtomicBool,
        asked: std::sync::atomic::AtomicUsize,
    }

    #[async_trait]
    impl CredentialProvider for Moody {
        type Credential = u8;

        async fn get_credential(&self) -> object_store::Result<Arc<u8>> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            let source = match self.refuses.load(Ordering::Relaxed) {
                true => "Server returned non-2xx status code: 403 Forbidden: ",
                false => "away",
            };
            match self.well.load(Ordering::Relaxed) {
                true => Ok(Arc::new(7)),
                false => Err(object_store::Error::Generic { store: "t", source: source.into() }),
            }
        }
    }

    fn fetched(moody: &Arc<Moody>, last_resort: bool) -> Fetched<u8> {
        let inner: Arc<dyn CredentialProvider<Credential = u8>> = moody.clone();
        let source = Source { asked: "nothing".into(), advice: "Set it", last_resort };
        Fetched::with(Service::S3, &inner, source, Box::leak(Box::default()))
    }

    #[tokio::test]
    async fn missing_credentials_are_reported_soon_and_once_for_all_tasks() {
        let moody = Arc::new(Moody::default());
        let missing = fetched(&moody, true);
        let began = Instant::now();
        let mut tried = 0;
        for _ in 0..5 {
            let error = missing.get_credential().await.unwrap_err();
            let missing = NoCredentials::of(&error).unwrap();
            assert!(missing.never);
            let text = missing.to_string();
            assert!(text.starts_with("nothing: ") && text.ends_with("away. Set it"), "{text}");
            let asked = moody.asked.load(Ordering::Relaxed);
            assert!(asked > 2 && (tried == 0 || tried == asked), "{asked} tries");
            tried = asked;
        }
        assert!(began.elapsed() < FIRST + Duration::from_secs(2));
        // A configured source may answer later.
        let error = fetched(&moody, false).get_credential().await.unwrap_err();
        assert!(!NoCredentials::of(&error).unwrap().never);
    }

    #[tokio::test]
    async fn a_refusal_is_not_tried_again_and_is_permanent_only_without_earlier_credentials() {
        let moody = Arc::new(Moody::default());
        moody.refuses.store(true, Ordering::Relaxed);
        for (had, last_resort) in [(false, false), (false, true), (true, false), (true, true)] {
            let refused = fetched(&moody, last_resort);
            refused.had.store(had, Ordering::Relaxed);
            let before = moody.asked.load(Ordering::Relaxed);
            let error = refused.get_credential().await.unwrap_err();
            assert_eq!(moody.asked.load(Ordering::Relaxed), before + 1, "one request");
            assert_eq!(NoCredentials::of(&error).unwrap().never, !had, "last resort: {last_resort}");
            assert_eq!(is_transient(&error), had);
        }
    }

    #[tokio::test]
    async fn one_failure_is_none_and_those_current_are_used_while_others_are_not_to_be_had() {
        let moody = Arc::new(Moody::default());
        let heals = moody.clone();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(100)).await;
            heals.well.store(true, Ordering::Relaxed);
        });
        let fetched = fetched(&moody, true);
        assert_eq!(*fetched.get_credential().await.unwrap(), 7, "the first request failed");
        moody.well.store(false, Ordering::Relaxed);
        let before = moody.asked.load(Ordering::Relaxed);
        for _ in 0..5 {
            assert_eq!(*fetched.get_credential().await.unwrap(), 7, "the current ones are valid");
        }
        assert_eq!(moody.asked.load(Ordering::Relaxed), before + 1, "one request");
    }
}

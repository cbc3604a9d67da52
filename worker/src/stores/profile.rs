//! The keys, region and endpoint of a profile, as AWS's own programs read them: `AWS_PROFILE` (else
//! `default`), in `~/.aws/credentials` and `~/.aws/config`, which `AWS_SHARED_CREDENTIALS_FILE` and
//! `AWS_CONFIG_FILE` may name otherwise.
//!
//! Not here: profiles that only lead elsewhere (`sso`, `source_profile`, `credential_process`): they
//! are an error that says so, where no other credentials are given.

use std::path::PathBuf;

/// What a profile says.
#[derive(Default, Clone, PartialEq, Eq)]
pub(super) struct Profile {
    /// Access key and secret.
    pub keys: Option<(String, String)>,
    pub token: Option<String>,
    pub region: Option<String>,
    pub endpoint: Option<String>,
}

/// Settings by name.
type Section = Vec<(String, String)>;

/// The profile in force; an empty one where there are no files.
///
/// # Errors
/// A profile that was asked for by name and is in neither file; a file that cannot be read.
pub(super) fn read() -> Result<Profile, String> {
    let asked = std::env::var("AWS_PROFILE").ok().filter(|name| !name.is_empty());
    let name = asked.as_deref().unwrap_or("default");
    let credentials = text("AWS_SHARED_CREDENTIALS_FILE", "credentials")?;
    let config = text("AWS_CONFIG_FILE", "config")?;
    let mut found = section(&credentials, name);
    let long = format!("profile {name}");
    found.extend(section(&config, if name == "default" { name } else { &long }));
    if found.is_empty() && asked.is_some() {
        return Err(format!(
            "AWS_PROFILE {name}: there is no such profile in the credentials or the config file"
        ));
    }
    let profile = profile(&found);
    let leads = ["sso_session", "sso_start_url", "source_profile", "credential_process"];
    if let (Some(_), None, Some((key, _))) =
        (&asked, &profile.keys, found.iter().find(|(key, _)| leads.contains(&key.as_str())))
    {
        return Err(format!(
            "AWS_PROFILE {name}: {key} is not supported: put the keys into the environment, for example with \
             `aws configure export-credentials`"
        ));
    }
    Ok(profile)
}

fn text(variable: &str, name: &str) -> Result<String, String> {
    let path = match (std::env::var_os(variable), std::env::var_os("HOME")) {
        (Some(path), _) => PathBuf::from(path),
        (None, Some(home)) => PathBuf::from(home).join(".aws").join(name),
        (None, None) => return Ok(String::new()),
    };
    match std::fs::read_to_string(&path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(format!("{}: {e}", path.display())),
        text => Ok(text.unwrap_or_default()),
    }
}

/// The settings of one section of an INI file; those of nested tables are left out.
fn section(text: &str, name: &str) -> Section {
    let mut inside = false;
    let mut found = vec![];
    for line in text.lines() {
        let trimmed = line.trim();
        if let Some(head) = trimmed.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            inside = head.0.split_whitespace().eq(name.split_whitespace());
        } else if inside
            && !line.starts_with([' ', '\t', '#', ';'])
            && let Some((key, value)) = trimmed.split_once('=')
        {
            found.push((key.trim().to_ascii_lowercase(), value.trim().to_string()));
        }
    }
    found
}

fn profile(section: &Section) -> Profile {
    let get = |key: &str| {
        let found = section.iter().find(|(name, value)| name == key && !value.is_empty());
        found.map(|(_, value)| value.clone())
    };
    Profile {
        keys: get("aws_access_key_id").zip(get("aws_secret_access_key")),
        token: get("aws_session_token"),
        region: get("region"),
        endpoint: get("endpoint_url"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_found_among_others() {
        let text = "# mine\n[default]\naws_access_key_id = A\naws_secret_access_key=S=1\n\n[ profile  two ]\nregion = x\n\
                    s3 =\n  endpoint_url = nested\nendpoint_url = http://h:1\n[profile three]\nregion = y";
        let found = profile(&section(text, "default"));
        assert_eq!(found.keys, Some(("A".into(), "S=1".into())));
        assert!(found.region.is_none());
        let found = profile(&section(text, "profile two"));
        assert_eq!((found.region.as_deref(), found.endpoint.as_deref()), (Some("x"), Some("http://h:1")));
        assert!(found.keys.is_none());
        assert!(section(text, "four").is_empty());
    }
}

//! The identity of a certificate, and its roles.
//!
//! Roles come from the certificate's subject alternative names: the URI `spiffe://tally/ROLE`, or names that a file maps
//! to roles. The host name is not checked: the cluster's own authority is a better proof than an address that changes
//! with each pod. Not here: what a role may do (`rules`).

use std::fmt;

use rustls::pki_types::CertificateDer;
use toml::{Table, Value};
use webpki::EndEntityCert;

/// The maximum number of characters of a name in messages.
const MAX_NAME: usize = 200;
/// The prefix of the names of roles, unless a file maps names to roles.
const NAME_PREFIX: &str = "spiffe://tally/";

/// A role of a process or a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// A coordinator.
    Coordinator,
    /// A worker: attaches, and reads and migrates outputs.
    Worker,
    /// Submits, cancels and drains, and may do all that a reader may.
    Operator,
    /// Reads the state of jobs and workers.
    Reader,
}

impl Role {
    /// All roles.
    pub const ALL: [Role; 4] = [Role::Coordinator, Role::Worker, Role::Operator, Role::Reader];

    /// The name of the role.
    pub fn name(self) -> &'static str {
        match self {
            Role::Coordinator => "coordinator",
            Role::Worker => "worker",
            Role::Operator => "operator",
            Role::Reader => "reader",
        }
    }

    /// The role with this name.
    pub fn parse(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// A set of roles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// The set of these roles.
    pub const fn of(roles: &[Role]) -> Roles {
        let (mut bits, mut at) = (0, 0);
        while at < roles.len() {
            bits |= 1 << roles[at] as u8;
            at += 1;
        }
        Roles(bits)
    }

    /// The union of two sets.
    pub fn and(self, other: Roles) -> Roles {
        Roles(self.0 | other.0)
    }

    /// Whether two sets have a common role.
    pub fn meets(self, other: Roles) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether the set contains a role.
    pub fn has(self, role: Role) -> bool {
        self.meets(Roles::of(&[role]))
    }
}

impl fmt::Display for Roles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = Role::ALL.into_iter().filter(|role| self.has(*role)).map(Role::name).collect();
        f.write_str(if names.is_empty() { "none".into() } else { names.join(", ") }.as_str())
    }
}

/// An authenticated peer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The first name in its certificate, or the name of its token.
    pub name: String,
    /// Its roles.
    pub roles: Roles,
}

/// A text that is not a map of names and roles.
#[derive(Debug, thiserror::Error)]
pub enum InvalidRoleMap {
    /// The text is not TOML.
    #[error(transparent)]
    Syntax(#[from] toml::de::Error),
    /// A key is not a role.
    #[error("unknown role {0:?}: the roles are coordinator, worker, operator and reader")]
    Role(String),
    /// The value of a role is not a list.
    #[error("{0}: give a list of names")]
    NotList(&'static str),
    /// A name of a role is empty or has another type.
    #[error("{0}: a name cannot be empty or a {1}")]
    Name(&'static str, &'static str),
}

/// The roles of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleMap(Vec<(String, Role)>);

impl Default for RoleMap {
    fn default() -> Self {
        RoleMap(Role::ALL.map(|role| (format!("{NAME_PREFIX}{}", role.name()), role)).to_vec())
    }
}

impl RoleMap {
    /// Parses `ROLE = ["NAME", ...]` for each role, as TOML. Names are compared literally with the URIs and DNS names in
    /// certificates.
    ///
    /// # Errors
    /// [`InvalidRoleMap`].
    pub fn parse(text: &str) -> Result<Self, InvalidRoleMap> {
        let table: Table = text.parse()?;
        let mut map = vec![];
        for (key, value) in table {
            let Some(role) = Role::parse(&key) else { return Err(InvalidRoleMap::Role(key)) };
            let Value::Array(names) = value else { return Err(InvalidRoleMap::NotList(role.name())) };
            for name in names {
                match name {
                    Value::String(name) if !name.is_empty() => map.push((name, role)),
                    other => return Err(InvalidRoleMap::Name(role.name(), other.type_str())),
                }
            }
        }
        Ok(RoleMap(map))
    }

    /// The identity of a certificate whose chain is verified.
    pub fn identity(&self, certificate: &CertificateDer<'_>) -> Identity {
        let names: Vec<String> = match EndEntityCert::try_from(certificate) {
            Ok(parsed) => {
                parsed.valid_uri_names().chain(parsed.valid_dns_names()).map(str::to_owned).collect()
            }
            Err(_) => vec![],
        };
        self.of_names(&names)
    }

    fn of_names(&self, names: &[String]) -> Identity {
        let roles = self.0.iter().filter(|(name, _)| names.contains(name)).map(|(_, role)| *role);
        let roles = roles.fold(Roles::default(), |all, role| all.and(Roles::of(&[role])));
        let first = names.first().map_or("a certificate without names", String::as_str);
        let name = first.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_NAME).collect();
        Identity { name, roles }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn roles(map: &RoleMap, names: &[&str]) -> String {
        let names: Vec<_> = names.iter().map(|name| (*name).to_owned()).collect();
        map.of_names(&names).roles.to_string()
    }

    #[test]
    fn a_role_is_a_whole_name() {
        let map = RoleMap::default();
        assert_eq!(roles(&map, &["w-1.example", "spiffe://tally/worker"]), "worker");
        assert_eq!(roles(&map, &["spiffe://tally/operator", "spiffe://tally/reader"]), "operator, reader");
        for none in ["spiffe://tally/worker/1", "spiffe://other/worker", "worker", "spiffe://tally/"] {
            assert_eq!(roles(&map, &[none]), "none", "{none}");
        }
    }

    #[test]
    fn a_file_maps_names_to_roles() {
        let map =
            RoleMap::parse("worker = [\"spiffe://prod/sa/w\", \"w.internal\"]\nreader = [\"ops\"]").unwrap();
        assert_eq!(roles(&map, &["w.internal"]), "worker");
        assert_eq!(roles(&map, &["spiffe://prod/sa/w", "ops"]), "worker, reader");
        assert_eq!(roles(&map, &["spiffe://tally/worker"]), "none", "the default is replaced");
        for (text, what) in [
            ("boss = []", "\"boss\""),
            ("worker = \"w\"", "a list"),
            ("worker = [1]", "a name cannot be empty or a integer"),
            ("worker = ", "worker"),
        ] {
            assert!(RoleMap::parse(text).unwrap_err().to_string().contains(what), "{text}");
        }
    }
}

//! Who a certificate belongs to, and the roles of that name.
//!
//! A role stands in the certificate's subject alternative names: as the URI `spiffe://tally/ROLE`, or under names that
//! a file lists. The host's name is not asked: an authority of the cluster's own says more than an address that
//! changes with each pod.

use std::fmt;

use rustls::pki_types::CertificateDer;
use toml::{Table, Value};
use webpki::EndEntityCert;

/// Characters of a name that are told.
const MOST_NAME: usize = 200;
/// What the names of roles begin with, unless a file says otherwise.
const DEFAULT: &str = "spiffe://tally/";

/// What a process or person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Leads, and asks who leads.
    Coordinator,
    /// Attaches, reads outputs and hands them over.
    Worker,
    /// Submits, cancels and drains, and all that a reader may.
    Operator,
    /// Looks.
    Reader,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 4] = [Role::Coordinator, Role::Worker, Role::Operator, Role::Reader];

    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Role::Coordinator => "coordinator",
            Role::Worker => "worker",
            Role::Operator => "operator",
            Role::Reader => "reader",
        }
    }

    /// The role of that name.
    pub fn parse(name: &str) -> Option<Role> {
        Role::ALL.into_iter().find(|role| role.name() == name)
    }
}

/// Some roles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Roles(u8);

impl Roles {
    /// These.
    pub const fn of(roles: &[Role]) -> Roles {
        let (mut bits, mut at) = (0, 0);
        while at < roles.len() {
            bits |= 1 << roles[at] as u8;
            at += 1;
        }
        Roles(bits)
    }

    /// These and those.
    pub fn and(self, other: Roles) -> Roles {
        Roles(self.0 | other.0)
    }

    /// Whether any of these is one of those.
    pub fn meets(self, other: Roles) -> bool {
        self.0 & other.0 != 0
    }

    /// Whether it is one of these.
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

/// A peer that proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The first name in its certificate, or the name of its token.
    pub name: String,
    /// What it may do.
    pub roles: Roles,
}

/// Which names have which roles.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoleMap(Vec<(String, Role)>);

impl Default for RoleMap {
    fn default() -> Self {
        RoleMap(Role::ALL.map(|role| (format!("{DEFAULT}{}", role.name()), role)).to_vec())
    }
}

impl RoleMap {
    /// Reads `ROLE = ["NAME", ...]` for each role, as TOML; names are compared as they stand with the URIs and DNS
    /// names in certificates.
    ///
    /// # Errors
    /// What is wrong with the text.
    pub fn parse(text: &str) -> Result<Self, String> {
        let table: Table = text.parse().map_err(|e: toml::de::Error| e.to_string())?;
        let mut map = vec![];
        for (key, value) in table {
            let role = Role::parse(&key).ok_or_else(|| {
                format!("there is no role {key:?}: there are coordinator, worker, operator and reader")
            })?;
            let Value::Array(names) = value else { return Err(format!("{key}: give a list of names")) };
            for name in names {
                match name {
                    Value::String(name) if !name.is_empty() => map.push((name, role)),
                    other => return Err(format!("{key}: a {} is no name", other.type_str())),
                }
            }
        }
        Ok(RoleMap(map))
    }

    /// Who a certificate, whose chain was verified, belongs to.
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
        let name = first.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MOST_NAME).collect();
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
    fn a_file_says_whose_roles_are_whose() {
        let map =
            RoleMap::parse("worker = [\"spiffe://prod/sa/w\", \"w.internal\"]\nreader = [\"ops\"]").unwrap();
        assert_eq!(roles(&map, &["w.internal"]), "worker");
        assert_eq!(roles(&map, &["spiffe://prod/sa/w", "ops"]), "worker, reader");
        assert_eq!(roles(&map, &["spiffe://tally/worker"]), "none", "the default is replaced");
        for (text, what) in [
            ("boss = []", "\"boss\""),
            ("worker = \"w\"", "a list"),
            ("worker = [1]", "a integer is no name"),
            ("worker = ", "worker"),
        ] {
            assert!(RoleMap::parse(text).unwrap_err().contains(what), "{text}");
        }
    }
}

//! What members say, signed: who is one of them, and which deletes are accepted.

use super::{Folder, lock, verify};
use crate::config::Config;
use dunlin_core::ids::{DeviceId, DotRange, FolderId};
use dunlin_core::members::{Released, accept, claimed_release, members, releases};
use dunlin_core::message::{STATEMENTS_MAX, Statement, signed_bytes};
use std::collections::BTreeMap;
use std::io;

/// What came of statements that were heard.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Added {
    /// Somebody is a member who was none.
    pub members: bool,
    /// All deletes that are accepted by now, if that is news.
    pub released: Option<Vec<DotRange>>,
}

pub(crate) fn ranges(releases: &[Released]) -> Vec<DotRange> {
    releases.iter().flat_map(|r| r.release.ranges.iter().copied()).collect()
}

/// The releases of a configuration that count.
pub(crate) fn known(config: &Config, members: &BTreeMap<DeviceId, String>) -> Vec<Released> {
    releases(config.id, members, &config.releases, verify)
}

impl Folder {
    /// Adds statements. Durable when it returns.
    pub(crate) fn add_statements(&self, new: Vec<Statement>) -> io::Result<Added> {
        let (heard, new): (Vec<_>, Vec<_>) = new.into_iter().partition(|s| claimed_release(s).is_some());
        let mut config = lock(&self.config);
        let mut next = config.clone();
        for s in new {
            if !next.statements.contains(&s) && next.statements.len() < STATEMENTS_MAX {
                next.statements.push(s);
            }
        }
        let before = members(self.id, &config.statements, verify);
        let mut after = members(self.id, &next.statements, verify);
        let mut added = Added { members: before != after, released: None };
        if !added.members {
            // What admits nobody new is not kept: a stranger's words take no room.
            (next.statements, after) = (config.statements.clone(), before);
        }
        next.releases.extend(heard);
        let kept = known(&next, &after);
        next.releases = kept.iter().map(|r| r.statement.clone()).collect();
        if next.releases != config.releases {
            added.released = Some(ranges(&kept));
        }
        if added == Added::default() {
            return Ok(added);
        }
        next.save(&self.dir)?;
        *config = next;
        drop(config);
        // Whoever is connected is told of all of them.
        self.members.send_replace(after);
        Ok(added)
    }

    /// Signs that these deletes are accepted, and has all members told. Durable when it returns.
    pub(crate) fn sign_release(&self, accepted: &[DotRange]) -> io::Result<()> {
        let by = DeviceId(*self.secret.public().as_bytes());
        let known = known(&lock(&self.config), &self.members.borrow());
        let sign = |claim| -> io::Result<Statement> {
            let claim = minicbor::to_vec(&claim).map_err(io::Error::other)?;
            let signature = self.secret.sign(&signed_bytes(&claim)).to_bytes().to_vec();
            Ok(Statement { claim, signature })
        };
        let new =
            accept(self.id, by, accepted, &known).into_iter().map(sign).collect::<io::Result<Vec<_>>>()?;
        self.add_statements(new).map(|_| ())
    }

    /// What is told to a peer at once: members first, since only their releases count.
    pub(crate) fn statements(&self) -> Vec<dunlin_core::message::Message> {
        let config = lock(&self.config);
        let message = |statements: &Vec<Statement>| {
            let (folder, statements): (FolderId, _) = (self.id, statements.clone());
            dunlin_core::message::Message::Statements { folder, statements }
        };
        let releases = Some(&config.releases).filter(|r| !r.is_empty());
        [&config.statements].into_iter().chain(releases).map(message).collect()
    }
}

//! Who belongs to a folder: what a set of signed statements amounts to.
//!
//! The creator is admitted by the folder's own key, everyone else by a member. The order in which
//! statements arrive does not matter.

use crate::ids::{DeviceId, FolderId};
use crate::message::{Claim, Statement};
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::vec::Vec;

/// The role of a member who may do everything.
pub const ROLE_ALL: u8 = 1;

/// The members and their names. `verify` checks a signature: (key, claim, signature).
pub fn members(
    folder: FolderId,
    statements: &[Statement],
    verify: impl Fn(&DeviceId, &[u8], &[u8]) -> bool,
) -> BTreeMap<DeviceId, String> {
    let claims: Vec<Claim> = statements
        .iter()
        .filter_map(|s| {
            let claim: Claim = minicbor::decode(&s.claim).ok()?;
            let fits = claim.folder == folder && claim.name.len() <= crate::message::DEVICE_NAME_MAX;
            (fits && verify(&claim.by, &s.claim, &s.signature)).then_some(claim)
        })
        .collect();
    let mut out: BTreeMap<DeviceId, String> = BTreeMap::new();
    loop {
        let before = out.len();
        for c in &claims {
            let may = c.by.0 == folder.0 || out.contains_key(&c.by);
            if may && c.role == ROLE_ALL {
                // Of several statements about one device the same one counts everywhere.
                let name = out.entry(c.device).or_insert_with(|| c.name.clone());
                if c.name < *name {
                    name.clone_from(&c.name);
                }
            }
        }
        if out.len() == before {
            return out;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;
    use alloc::vec;

    fn admit(folder: u8, device: u8, by: u8) -> Statement {
        let claim = Claim {
            folder: FolderId([folder; 32]),
            device: DeviceId([device; 32]),
            name: device.to_string(),
            by: DeviceId([by; 32]),
            role: ROLE_ALL,
            after: vec![],
        };
        Statement { claim: minicbor::to_vec(&claim).unwrap(), signature: vec![by] }
    }

    fn who(statements: &[Statement]) -> Vec<u8> {
        let verify = |by: &DeviceId, _: &[u8], signature: &[u8]| signature == [by.0[0]];
        members(FolderId([9; 32]), statements, verify).keys().map(|d| d.0[0]).collect()
    }

    #[test]
    fn membership_passes_from_the_creator_in_any_order() {
        let chain = [admit(9, 1, 9), admit(9, 2, 1), admit(9, 3, 2)];
        assert_eq!(who(&chain), [1, 2, 3]);
        assert_eq!(who(&[chain[2].clone(), chain[1].clone(), chain[0].clone()]), [1, 2, 3]);
    }

    #[test]
    fn strangers_forgers_and_other_folders_admit_nobody() {
        assert_eq!(who(&[admit(9, 1, 9), admit(9, 2, 5)]), [1]);
        assert_eq!(who(&[admit(9, 1, 9), admit(8, 2, 1)]), [1]);
        let mut forged = admit(9, 2, 1);
        forged.signature = vec![7];
        assert_eq!(who(&[admit(9, 1, 9), forged]), [1]);
        assert_eq!(who(&[admit(9, 1, 2), admit(9, 2, 1)]), [0u8; 0]);
    }
}

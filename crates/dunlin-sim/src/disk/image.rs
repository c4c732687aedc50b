//! A whole disk as it was at a moment: a snapshot of a virtual machine, or a backup of everything.

use super::ModelDisk;
use super::tree::Tree;
use crate::chance::Chance;

/// A disk at a moment.
#[derive(Clone)]
pub struct Image(Tree);

impl ModelDisk {
    /// The disk as it is now.
    pub fn image(&self) -> Image {
        Image(self.tree().clone())
    }

    /// The disk is again what it was; nothing that runs goes on. With `torn`, what was not durable then may be
    /// missing, as from a machine that ran when the image was made.
    pub fn bring_back(&self, image: &Image, torn: Option<&mut Chance>) {
        let mut tree = self.tree();
        let mut old = image.0.clone();
        (old.lives, old.now, old.counts) = (tree.lives, tree.now, tree.counts);
        (old.faults, old.options) = (tree.faults.clone(), tree.options.clone());
        old.halt();
        if let Some(chance) = torn {
            old.crash(chance);
        }
        old.sync_all();
        *tree = old;
    }
}

//! The tokens of a sequence, as numbers that tell them.

/// The tokens of a sequence: branches of a tree, each a seed and the position from which its tokens are drawn with it.
///
/// Two sequences that share a prefix share the branches of it, so it has the same tokens in both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lineage {
    /// Seeds and first positions, ascending; the first is 0.
    pub branches: Vec<(u64, usize)>,
    len: usize,
}

impl Lineage {
    /// No token yet.
    pub fn new(seed: u64) -> Lineage {
        Lineage { branches: vec![(seed, 0)], len: 0 }
    }

    /// Tokens so far.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The same tokens so far, and others from here on.
    pub fn branch(&self, seed: u64) -> Lineage {
        let mut branches = self.branches.clone();
        // A branch that never had a token says nothing.
        branches.retain(|(_, from)| *from < self.len);
        branches.push((seed, self.len));
        Lineage { branches, len: self.len }
    }

    /// So many tokens more.
    pub fn extend(&mut self, tokens: usize) {
        self.len += tokens;
    }

    /// The token at a position, which may be one to come, below `vocabulary`.
    pub fn token(&self, position: usize, vocabulary: usize) -> usize {
        let branch = self.branches.iter().rev().find(|(_, from)| *from <= position);
        let seed = branch.map_or(0, |(seed, _)| *seed);
        (mix(seed ^ mix(position as u64)) % vocabulary as u64) as usize
    }
}

/// A number that looks random: the finaliser of SplitMix64.
fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

//! A deterministic embedder without weights to download: words, pairs of words and pieces of words, hashed.
//!
//! Each feature lands on a few signed places of the vector (Weinberger et al., "Feature hashing for large scale multitask
//! learning", 2009), so that the dot product of two texts estimates the overlap of their features. It knows no synonyms;
//! pieces of words let it forgive endings and typing errors. Sums run in one fixed order and use additions,
//! multiplications and square roots only, which IEEE 754 rounds exactly: the same text gives the same bits everywhere.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::exact::unit;
use super::provider::{Provider, ProviderError};

/// Changes with every change of what follows that moves a vector: it is part of the model's identity, so that vectors
/// of two versions are never compared.
const VERSION: u32 = 1;

/// Places per feature. One place makes a collision of two heavy features a false hit; four quarter-energy places make it noise.
const PLACES: u64 = 4;

/// Weights of a word, a pair of words, and the pieces of a word together. These and the next four come from a grid of 72
/// over 28 questions to the example's help articles, each at four lengths of the vector, so that none is luck of the
/// hash: every question found its article first.
const WORD: f64 = 1.0;
const PAIR: f64 = 0.3;
const PIECES: f64 = 1.1;
/// What is left of a word that says little about a text's subject.
const STOP: f64 = 0.05;
/// There is no corpus to count rare words in, but long words are rarer: a word of three letters weighs 0.43, of nine 1.
const LENGTH_BASE: f64 = 0.1;
const LENGTH_STEP: f64 = 0.11;

/// Lengths of the pieces of a word, its two ends counted as one character each.
const PIECE_LENGTHS: RangeInclusive<usize> = 3..=5;
/// The same where words are written without spaces, and one character says as much as a piece of a word elsewhere.
const WIDE_PIECE_LENGTHS: RangeInclusive<usize> = 1..=3;

/// Hashes features into vectors of a given length.
#[derive(Debug, Clone)]
pub struct Hashing {
    dimensions: usize,
}

impl Hashing {
    /// Returns the embedder; at least one dimension.
    #[must_use]
    pub fn new(dimensions: usize) -> Self {
        Self { dimensions: dimensions.max(1) }
    }

    fn vector(&self, text: &str) -> Vec<f32> {
        let mut sums = vec![0.0_f64; self.dimensions];
        for (feature, energy) in features(text) {
            // Energy adds up over repetitions, weight grows with its root: the tenth mention says less than the first.
            self.add(&mut sums, feature, energy.sqrt());
        }
        unit(&narrowed(&sums)).unwrap_or_else(|_| self.of_whole(text))
    }

    /// Returns a direction of its own for a text without a word (or whose features cancel): it finds itself.
    fn of_whole(&self, text: &str) -> Vec<f32> {
        let mut sums = vec![0.0; self.dimensions];
        let (place, sign) =
            self.place(hash(Kind::Whole, text.chars().filter(|character| !character.is_whitespace())));
        sums[place] = sign;
        narrowed(&sums)
    }

    fn add(&self, sums: &mut [f64], feature: u64, weight: f64) {
        for turn in 1..=PLACES {
            let (place, sign) = self.place(feature.wrapping_add(turn.wrapping_mul(0x9e37_79b9_7f4a_7c15)));
            sums[place] += sign * weight;
        }
    }

    /// Returns a place and a sign drawn by the bits.
    fn place(&self, bits: u64) -> (usize, f64) {
        let bits = mixed(bits);
        // The high half, scaled to the dimensions without the bias of a remainder.
        let place = (u128::from(bits) * (self.dimensions as u128)) >> 64;
        let place = usize::try_from(place).expect("less than the dimensions");
        (place, if bits & 1 == 0 { 1.0 } else { -1.0 })
    }
}

impl Provider for Hashing {
    fn id(&self) -> String {
        format!("hashing/{VERSION}/{}", self.dimensions)
    }

    fn dimensions(&self) -> usize {
        self.dimensions
    }

    fn embed(&self, texts: &[&str]) -> Result<Vec<Vec<f32>>, ProviderError> {
        Ok(texts.iter().map(|text| self.vector(text)).collect())
    }
}

#[expect(clippy::cast_possible_truncation, reason = "vectors are stored in single precision")]
fn narrowed(sums: &[f64]) -> Vec<f32> {
    sums.iter().map(|sum| *sum as f32).collect()
}

/// Returns the words of a text: runs of letters and digits in lower case, and every symbol (an emoji) by itself.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut characters = text.chars().flat_map(char::to_lowercase).peekable();
    while let Some(character) = characters.next() {
        let apostrophe = matches!(character, '\'' | '’') && !word.is_empty();
        if character.is_alphanumeric() || (is_mark(character) && !word.is_empty()) {
            word.push(character);
        } else if !(apostrophe && characters.peek().is_some_and(|next| next.is_alphanumeric())) {
            if !word.is_empty() {
                words.push(std::mem::take(&mut word));
            }
            if is_symbol(character) {
                words.push(character.to_string());
            }
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Marks that stand between the letters of a word: accents written apart, vowel signs, viramas.
fn is_mark(character: char) -> bool {
    matches!(character, '\u{0300}'..='\u{036f}' | '\u{0483}'..='\u{0489}' | '\u{0591}'..='\u{05c7}'
        | '\u{0610}'..='\u{061a}' | '\u{064b}'..='\u{065f}' | '\u{0900}'..='\u{0dff}' | '\u{0e31}'..='\u{0e4e}')
}

fn is_symbol(character: char) -> bool {
    let punctuation = character.is_ascii()
        || matches!(character, '\u{00a0}'..='\u{00bf}' | '\u{2000}'..='\u{206f}' | '\u{3000}'..='\u{303f}'
            | '\u{fe00}'..='\u{fe0f}' | '\u{fe10}'..='\u{fe4f}' | '\u{ff00}'..='\u{ff65}');
    !punctuation && !character.is_whitespace() && !character.is_control() && !is_mark(character)
}

/// Returns whether an English word says little about a text's subject.
pub(super) fn is_stop_word(word: &str) -> bool {
    STOP_WORDS.binary_search(&word).is_ok()
}

/// Returns the features of a text with their energies, in the order of their hashes.
fn features(text: &str) -> BTreeMap<u64, f64> {
    let words = words(text);
    #[expect(clippy::cast_precision_loss, reason = "a word has fewer characters than 2^53")]
    let weight = |word: &str| match word {
        stop if is_stop_word(stop) => STOP,
        word => (LENGTH_BASE + LENGTH_STEP * word.chars().count() as f64).min(1.0),
    };
    let mut features: BTreeMap<u64, f64> = BTreeMap::new();
    let mut add = |feature: u64, weight: f64| *features.entry(feature).or_default() += weight * weight;
    for word in &words {
        add(hash(Kind::Word, word.chars()), WORD * weight(word));
        if !is_stop_word(word) {
            let pieces = pieces(word);
            #[expect(clippy::cast_precision_loss, reason = "a word has fewer pieces than 2^53")]
            let share = PIECES * weight(word) / (pieces.len() as f64).sqrt();
            for piece in pieces {
                add(piece, share);
            }
        }
    }
    for pair in words.windows(2) {
        let characters = pair[0].chars().chain([' ']).chain(pair[1].chars());
        add(hash(Kind::Pair, characters), PAIR * (weight(&pair[0]) * weight(&pair[1])).sqrt());
    }
    features
}

/// Returns the hashes of a word's pieces.
fn pieces(word: &str) -> Vec<u64> {
    let characters: Vec<char> = std::iter::once('<').chain(word.chars()).chain(['>']).collect();
    let of_length = |length| characters.windows(length).map(|piece| hash(Kind::Piece, piece.iter().copied()));
    let lengths = if word.chars().any(is_wide) { WIDE_PIECE_LENGTHS } else { PIECE_LENGTHS };
    lengths.flat_map(of_length).collect()
}

/// Thai, Lao, Khmer, Japanese and Chinese.
fn is_wide(character: char) -> bool {
    matches!(character, '\u{0e00}'..='\u{0eff}' | '\u{1780}'..='\u{17ff}' | '\u{3040}'..='\u{30ff}'
        | '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3134f}')
}

#[derive(Clone, Copy)]
enum Kind {
    Word = 1,
    Pair = 2,
    Piece = 3,
    Whole = 4,
}

/// FNV-1a over the characters, so that the same text hashes alike in every build.
fn hash(kind: Kind, characters: impl Iterator<Item = char>) -> u64 {
    let numbers = std::iter::once(kind as u32).chain(characters.map(u32::from));
    numbers.fold(0xcbf2_9ce4_8422_2325, |hash, number| {
        (hash ^ u64::from(number)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// The finaliser of SplitMix64 (Steele, Lea and Flood, 2014): every bit of the input moves half of the output's.
fn mixed(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Sorted, for the binary search.
const STOP_WORDS: &[&str] = &[
    "a", "about", "after", "again", "all", "also", "am", "an", "and", "any", "are", "as", "at", "be",
    "because", "been", "before", "being", "but", "by", "can", "cannot", "cant", "could", "did", "do", "does",
    "doing", "done", "dont", "each", "every", "few", "for", "from", "get", "got", "had", "has", "have",
    "having", "he", "her", "here", "hers", "him", "his", "how", "i", "id", "if", "im", "in", "into", "is",
    "it", "its", "ive", "just", "like", "may", "me", "might", "more", "most", "much", "must", "my", "need",
    "no", "nor", "not", "now", "of", "off", "on", "once", "one", "only", "or", "other", "our", "ours", "out",
    "over", "own", "please", "same", "she", "should", "so", "some", "such", "than", "that", "thats", "the",
    "their", "theirs", "them", "then", "there", "these", "they", "this", "those", "to", "too", "under",
    "until", "up", "us", "very", "want", "was", "we", "were", "what", "when", "where", "which", "while",
    "who", "whom", "whose", "why", "will", "with", "would", "you", "your", "yours",
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn embedded(text: &str) -> Vec<f32> {
        Hashing::new(384).vector(text)
    }

    fn cosine(left: &str, right: &str) -> f32 {
        embedded(left).iter().zip(embedded(right)).map(|(left, right)| left * right).sum()
    }

    /// Whoever changes this digest changes `VERSION` with it.
    #[test]
    fn version_1_gives_these_bits() {
        assert_eq!(Hashing::new(384).id(), "hashing/1/384");
        let mut digest = Sha256::new();
        for text in
            ["Refund my order, please: it's late.", "Où est mon colis\u{a0}?", "返品したい 😀", "", "?!"]
        {
            for value in embedded(text) {
                digest.update(value.to_le_bytes());
            }
        }
        assert_eq!(hex::encode(&digest.finalize()[..8]), "ad4f405b405795d5");
    }

    #[test]
    fn stop_words_are_sorted() {
        assert!(STOP_WORDS.is_sorted());
        assert!(is_stop_word("your") && !is_stop_word("refund"));
    }

    #[test]
    fn words_of_many_scripts() {
        assert_eq!(words("The chef's KNIFE, it’s 20€!"), ["the", "chefs", "knife", "its", "20", "€"]);
        assert_eq!(words("Straße 返品 हिन्दी 😀👍"), ["straße", "返品", "हिन्दी", "😀", "👍"]);
        assert!(words(" \n\u{200d} ... \u{fe0f}'' ").is_empty());
    }

    #[test]
    fn what_is_alike_is_near_and_what_is_not_is_far() {
        assert!((cosine("Where is my parcel?", "where is MY parcel") - 1.0).abs() < 1e-6);
        assert!(cosine("refund of the order", "an order was refunded") > 0.45);
        assert!(cosine("accommodation", "accomodation") > 0.2, "a typing error");
        assert!(cosine("refund of the order", "wool blanket care").abs() < 0.2);
        assert!(cosine("the is a of", "to be or not").abs() < 0.3, "stop words alone");
        assert!(cosine("😀", "👍").abs() < 0.5 && cosine("返品したい", "返品の方法") > 0.1);
    }

    proptest! {
        #[test]
        fn every_text_has_a_unit_vector(text in "(?s).{0,300}", dimensions in 1_usize..500) {
            let hashing = Hashing::new(dimensions);
            let vectors = hashing.embed(&[&text, &text]).expect("hashing never fails");
            prop_assert_eq!(vectors.len(), 2);
            prop_assert_eq!(&vectors[0], &vectors[1]);
            prop_assert_eq!(vectors[0].len(), dimensions);
            let square: f64 = vectors[0].iter().map(|value| f64::from(*value).powi(2)).sum();
            prop_assert!((square - 1.0).abs() < 1e-5, "length {}", square);
        }
    }
}

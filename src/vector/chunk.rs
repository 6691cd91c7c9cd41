//! Cuts a text where its content says, so that an edit moves the cuts near it and no others.
//!
//! Every place between two characters has a rank: first the kind of place (a paragraph's end before a sentence's before
//! a word's), then a hash of the characters around it. A place is a cut when nothing of at least its rank lies within
//! half a target on either side. Whether a place is a cut is therefore decided by its surroundings alone, not by where
//! the previous cut fell, and two cuts are always more than half a target apart. Published as local-maximum chunking
//! by Bjørner, Blass and Gurevich, "Content-dependent chunking for differential compression, the local maximum
//! approach", 2010; the kinds of places are ours.

use std::collections::VecDeque;

/// Lengths of chunks, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkSizes {
    /// No chunk is shorter, unless the text is.
    pub min: usize,
    /// What lengths come out around.
    pub target: usize,
    /// No chunk is longer.
    pub max: usize,
}

impl ChunkSizes {
    /// Returns the sizes around a target: from half of it to twice it.
    #[must_use]
    pub fn around(target: u32) -> Self {
        // Below two characters there is no half.
        let target = usize::try_from(target).unwrap_or(usize::MAX / 4).clamp(2, usize::MAX / 4);
        Self { min: target / 2, target, max: 2 * target }
    }
}

/// Characters before a place that its hash sees: as many as a few words, so that equal phrases rank apart.
const BEFORE: usize = 24;
/// Characters after it.
const AFTER: usize = 8;

/// Kinds of places, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Place {
    /// Inside what a reader sees as one character: cut only when nothing else is there.
    Cluster,
    Letter,
    Word,
    Sentence,
    Paragraph,
}

type Rank = (Place, u64);

/// Returns the chunks of a text in order; joined they are the text.
///
/// An empty text has none. A chunk never ends inside a character.
#[must_use]
pub fn split(text: &str, sizes: ChunkSizes) -> Vec<&str> {
    if text.is_empty() {
        return Vec::new();
    }
    let (starts, characters): (Vec<usize>, Vec<char>) = text.char_indices().unzip();
    let mut chunks = Vec::new();
    let mut from = 0;
    for cut in cuts(&characters, sizes).into_iter().chain([characters.len()]) {
        let end = starts.get(cut).copied().unwrap_or(text.len());
        chunks.push(&text[from..end]);
        from = end;
    }
    chunks
}

/// Returns where to cut, as numbers of characters, without the text's own ends.
fn cuts(characters: &[char], sizes: ChunkSizes) -> Vec<usize> {
    let length = characters.len();
    // The ends of the text are cuts of the highest rank: nothing within reach of them is one.
    if length <= sizes.target || length < 2 * sizes.min + 2 {
        return Vec::new();
    }
    // `ranks[i]` is the place before character `i`; that before the first is the text's start.
    let mut flags = 0;
    let mut ranks: Vec<Rank> = Vec::with_capacity(length);
    for (at, character) in characters.iter().enumerate() {
        ranks.push(rank(characters, at, flags));
        flags = if is_flag_letter(*character) { flags + 1 } else { 0 };
    }
    let mut cuts = Vec::new();
    let mut open = 0;
    for cut in maxima(&ranks, sizes.min).into_iter().chain([length]) {
        while cut - open > sizes.max {
            // Nothing stood out for long. The window leaves a whole chunk on both sides of the cut.
            let window = open + sizes.min..=(open + sizes.max).min(cut - sizes.min);
            // The first of equals, so that a text of one repeated line is cut into equal chunks.
            let best = window.rev().max_by_key(|at| ranks[*at]).unwrap_or(open + sizes.min);
            cuts.push(best);
            open = best;
        }
        cuts.push(cut);
        open = cut;
    }
    cuts.pop();
    cuts
}

/// Returns the places that outrank every other within `reach`, and lie farther than that from both ends.
fn maxima(ranks: &[Rank], reach: usize) -> Vec<usize> {
    let length = ranks.len();
    let mut found = Vec::new();
    // Places that may still be the best of the window, best first; equals stay, so that they can be told.
    let mut window: VecDeque<usize> = VecDeque::new();
    for seen in 1..length {
        while window.back().is_some_and(|last| ranks[*last] < ranks[seen]) {
            window.pop_back();
        }
        window.push_back(seen);
        let Some(middle) = seen.checked_sub(reach).filter(|middle| *middle > reach) else { continue };
        while window.front().is_some_and(|first| first + reach < middle) {
            window.pop_front();
        }
        let alone = window.get(1).is_none_or(|second| ranks[*second] < ranks[middle]);
        if window.front() == Some(&middle) && alone {
            found.push(middle);
        }
    }
    found
}

/// Returns the rank of the place before the character at `at`, which follows so many letters of flags in a row.
fn rank(characters: &[char], at: usize, flags: usize) -> Rank {
    let around = &characters[at.saturating_sub(BEFORE)..(at + AFTER).min(characters.len())];
    let hash = around.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, character| {
        (hash ^ u64::from(u32::from(*character))).wrapping_mul(0x0000_0100_0000_01b3)
    });
    // FNV's high bits, which decide, lag behind the last characters: mix once (the finaliser of MurmurHash3).
    let hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    (place(characters, at, flags), hash ^ (hash >> 33))
}

fn place(characters: &[char], at: usize, flags: usize) -> Place {
    let (Some(before), Some(after)) = (at.checked_sub(1).map(|last| characters[last]), characters.get(at))
    else {
        return Place::Letter;
    };
    // Two letters make a flag: it is whole after an even number of them.
    let splits_flag = flags % 2 == 1 && is_flag_letter(*after);
    if (before == '\r' && *after == '\n') || splits_flag || continues(before, *after) {
        return Place::Cluster;
    }
    // White space belongs to what it follows.
    if after.is_whitespace() {
        return Place::Letter;
    }
    if !before.is_whitespace() {
        return if ends_wide_sentence(before) { Place::Sentence } else { Place::Letter };
    }
    let space = characters[..at].iter().rev().take_while(|character| character.is_whitespace()).take(BEFORE);
    let lines = space.clone().filter(|character| **character == '\n').count();
    let last = characters[..at].iter().rev().take(BEFORE).find(|character| !character.is_whitespace());
    match (lines, last) {
        (2.., _) => Place::Paragraph,
        (1, _) => Place::Sentence,
        (0, Some('.' | '!' | '?' | '…' | ':' | ';')) => Place::Sentence,
        (0, Some(')' | '"' | '\'' | '”' | '’' | '»')) if closes_sentence(characters, at) => {
            Place::Sentence
        }
        _ => Place::Word,
    }
}

/// Returns whether a quote or a bracket closes after the end of a sentence.
fn closes_sentence(characters: &[char], at: usize) -> bool {
    let mut back =
        characters[..at].iter().rev().take(BEFORE).skip_while(|character| character.is_whitespace());
    back.next();
    matches!(back.next(), Some('.' | '!' | '?' | '…'))
}

/// Ends of sentences in scripts that write no space after them.
fn ends_wide_sentence(character: char) -> bool {
    matches!(character, '。' | '！' | '？' | '．' | '｡' | '।' | '॥')
}

fn is_flag_letter(character: char) -> bool {
    ('\u{1f1e6}'..='\u{1f1ff}').contains(&character)
}

/// Returns whether two characters show as one: combining marks, joined and coloured emoji.
fn continues(before: char, after: char) -> bool {
    const JOINER: char = '\u{200d}';
    let mark = matches!(after,
        '\u{0300}'..='\u{036f}' | '\u{1ab0}'..='\u{1aff}' | '\u{1dc0}'..='\u{1dff}' | '\u{20d0}'..='\u{20ff}'
        | '\u{fe00}'..='\u{fe0f}' | '\u{fe20}'..='\u{fe2f}' | '\u{1f3fb}'..='\u{1f3ff}'
        | '\u{e0020}'..='\u{e007f}' | JOINER);
    mark || before == JOINER
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fmt::Write as _;

    use proptest::prelude::*;

    use super::*;

    /// A small generator, so that a failing case is the same everywhere.
    struct Draw(u64);

    impl Draw {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            usize::try_from(self.0 >> 33).expect("31 bits") % bound
        }
    }

    /// Prose of lines, sentences and paragraphs; words are drawn with repetition as in real text.
    fn prose(draw: &mut Draw, length: usize) -> String {
        let mut text = String::new();
        while text.len() < length {
            for _ in 0..=draw.below(7) {
                for word in 0..4 + draw.below(14) {
                    let separator = if word == 0 { "" } else { " " };
                    let _ = write!(text, "{separator}w{}", draw.below(40) * draw.below(40));
                }
                text.push_str(if draw.below(3) == 0 { ".\n" } else { ". " });
            }
            text.push_str("\n\n");
        }
        text
    }

    #[test]
    fn a_short_text_is_one_chunk_and_an_empty_one_none() {
        let sizes = ChunkSizes::around(800);
        assert_eq!(split("", sizes), Vec::<&str>::new());
        assert_eq!(split("One line.", sizes), vec!["One line."]);
        assert_eq!(split("\u{1f469}\u{200d}\u{1f469}", sizes), vec!["\u{1f469}\u{200d}\u{1f469}"]);
    }

    #[test]
    fn one_line_more_in_a_megabyte_changes_at_most_three_chunks() {
        let sizes = ChunkSizes::around(800);
        let mut draw = Draw(7);
        let text = prose(&mut draw, 1 << 20);
        let before: BTreeSet<&str> = split(&text, sizes).into_iter().collect();
        assert!(before.len() > 900 && before.len() < 1_800, "{} chunks", before.len());
        let lines: Vec<usize> = text.match_indices('\n').map(|(at, _)| at + 1).collect();
        let mut total = 0;
        let trials = 12;
        for trial in 0..trials {
            let at = lines[draw.below(lines.len())];
            let edited =
                format!("{}a line that was not there before, number {trial}.\n{}", &text[..at], &text[at..]);
            let changed = split(&edited, sizes).into_iter().filter(|chunk| !before.contains(chunk)).count();
            assert!((1..=3).contains(&changed), "{changed} chunks changed by a line at {at}");
            total += changed;
        }
        assert!(total < trials * 2, "{total} chunks changed by {trials} lines");
    }

    #[test]
    fn cuts_fall_on_ends_of_paragraphs_or_sentences() {
        let text = prose(&mut Draw(3), 100_000);
        let chunks = split(&text, ChunkSizes::around(400));
        let clean = chunks.iter().filter(|chunk| chunk.trim_end().ends_with('.')).count();
        assert_eq!(clean, chunks.len());
        let paragraphs = chunks.iter().filter(|chunk| chunk.ends_with("\n\n")).count();
        assert!(paragraphs * 2 > chunks.len(), "{paragraphs} of {}", chunks.len());
    }

    #[test]
    fn joined_emoji_flags_and_line_ends_stay_whole() {
        let family = "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}";
        for unit in [family, "\u{1f1e8}\u{1f1ed}", "e\u{301}", "ab\r\n"] {
            let text = unit.repeat(500);
            let chunks = split(&text, ChunkSizes::around(50));
            assert!(chunks.len() > 5);
            for chunk in chunks {
                assert!(!chunk.ends_with(['\u{200d}', '\r']), "{chunk:?}");
                assert!(!chunk.starts_with(['\u{200d}', '\u{301}', '\n']), "{chunk:?}");
                assert!(unit != "\u{1f1e8}\u{1f1ed}" || chunk.chars().count() % 2 == 0, "a flag was cut");
            }
        }
    }

    #[test]
    fn a_megabyte_of_one_letter_ends_soon_and_keeps_the_sizes() {
        let text = "a".repeat(1 << 20);
        let sizes = ChunkSizes::around(800);
        let chunks = split(&text, sizes);
        assert!(chunks.iter().all(|chunk| (sizes.min..=sizes.max).contains(&chunk.len())));
    }

    proptest! {
        #[test]
        fn chunks_join_to_the_text_within_the_sizes(text in "(?s).{0,600}", repeat in 1_usize..8, target in 2_u32..200) {
            let text = text.repeat(repeat);
            let sizes = ChunkSizes::around(target);
            let chunks = split(&text, sizes);
            prop_assert_eq!(chunks.concat(), text.clone());
            for chunk in &chunks {
                let length = chunk.chars().count();
                prop_assert!(length <= sizes.max, "{} characters", length);
                prop_assert!(chunks.len() == 1 || length >= sizes.min, "{} characters", length);
            }
        }
    }

    proptest! {
        // Each case cuts 40,000 characters.
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn an_edit_leaves_what_is_far_from_it(seed in any::<u64>(), at in 0_usize..20_000, edit in "[a-z .\n]{0,80}") {
            let text = prose(&mut Draw(seed), 20_000);
            let sizes = ChunkSizes::around(200);
            let at = at.min(text.len());
            let edited = format!("{}{edit}{}", &text[..at], &text[at..]);
            let before: BTreeSet<&str> = split(&text, sizes).into_iter().collect();
            let changed = split(&edited, sizes).into_iter().filter(|chunk| !before.contains(chunk)).count();
            prop_assert!(changed <= 5, "{} chunks changed", changed);
        }
    }
}

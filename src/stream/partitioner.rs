//! Which partition a key belongs to: the rule of Kafka's Java client, so that a topic folder and a Kafka topic with as
//! many partitions place every key alike.

use super::PartitionId;

/// Returns the 32-bit murmur2 hash of `data` with Kafka's seed.
///
/// Source of the formula: `MurmurHash2` by Austin Appleby (public domain) with the seed and signed result that
/// `org.apache.kafka.common.utils.Utils.murmur2` fixes.
pub fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_B28C;
    const MULTIPLIER: u32 = 0x5BD1_E995;
    const SHIFT: u32 = 24;

    #[expect(
        clippy::cast_possible_truncation,
        reason = "lengths wrap as in Java's int arithmetic; keys of 4 GiB do not occur"
    )]
    let mut hash = SEED ^ data.len() as u32;
    let mut words = data.chunks_exact(4);
    for word in &mut words {
        let mut mixed = u32::from_le_bytes([word[0], word[1], word[2], word[3]]).wrapping_mul(MULTIPLIER);
        mixed ^= mixed >> SHIFT;
        hash = hash.wrapping_mul(MULTIPLIER) ^ mixed.wrapping_mul(MULTIPLIER);
    }
    let tail = words.remainder();
    if !tail.is_empty() {
        for (index, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * index);
        }
        hash = hash.wrapping_mul(MULTIPLIER);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(MULTIPLIER);
    (hash ^ (hash >> 15)).cast_signed()
}

/// Returns the partition of `key` among `count` partitions (`count` below 1 counts as 1).
pub fn partition_for_key(key: &[u8], count: i32) -> PartitionId {
    (murmur2(key) & i32::MAX) % count.max(1)
}

#[cfg(test)]
mod tests {
    use super::{murmur2, partition_for_key};

    #[test]
    fn agrees_with_kafkas_own_test_vectors() {
        // From UtilsTest.testMurmur2 in Apache Kafka.
        for (key, hash) in [
            (&b"21"[..], -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            (b"abc", 479_470_107),
        ] {
            assert_eq!(murmur2(key), hash, "{}", String::from_utf8_lossy(key));
        }
        assert_eq!(partition_for_key(b"foobar", 4), 2);
        assert_eq!(partition_for_key(b"foobar", 0), 0);
    }
}

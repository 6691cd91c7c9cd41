use proptest::prelude::*;

use super::packet::{Reader, dearmor, packets, padded};
use super::*;

#[test]
fn lengths_and_numbers_are_read_as_the_standard_writes_them() {
    assert_eq!(Reader(&[191]).length(), Some(191));
    assert_eq!(Reader(&[192, 0]).length(), Some(192));
    assert_eq!(Reader(&[223, 255]).length(), Some(8383));
    assert_eq!(Reader(&[255, 0, 1, 0, 0]).length(), Some(65536));
    assert_eq!(Reader(&[224]).length(), None, "bodies in parts are not for signatures");
    assert_eq!(Reader(&[0, 9, 1, 255]).number(), Some(&[1, 255][..]));
    assert_eq!(Reader(&[0, 9, 1]).number(), None);
    assert_eq!(padded(&[1, 2], 3), Some(vec![0, 1, 2]));
    assert_eq!(padded(&[1, 2], 1), None);
    assert_eq!(packets(&[0xc2, 1, 9, 0x88, 2, 7, 7]).unwrap(), [(2, &[9][..]), (2, &[7, 7][..])]);
    assert!(packets(&[0xc2, 2, 9]).is_err() && packets(&[0x42, 0]).is_err());
}

#[test]
fn armour_is_taken_off_with_its_headers_and_checksum() {
    let text =
        "-----BEGIN PGP SIGNATURE-----\nVersion: x\nComment: y\n\nAQID\n=twTO\n-----END PGP SIGNATURE-----\n";
    assert_eq!(dearmor(text, "PGP SIGNATURE"), Ok(vec![1, 2, 3]));
    assert!(dearmor(text, "PGP PUBLIC KEY BLOCK").is_err());
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(packets) = packets(&bytes) {
            let _ = key::pinned(&packets);
        }
        let _ = Signature::read(&[&[4], &bytes[..]].concat());
        let _ = key::pinned(&[(packet::KEY, &bytes), (packet::USER, b"a@b"), (packet::SIGNATURE, &bytes)]);
    }
}

//! What the other tests rely on: how errors are judged, how memory is compared, what a made-up server keeps of a sequence.
//!
//! They stand here and not beside the code, since the library would be compiled once more for them.

use gdn_host::DType;
use gdn_tests::compare::{Error, rel_l2, worst_vector};
use gdn_tests::problem::{Memory, solution::transpose};
use gdn_tests::soak::past::{Event, Past};
use gdn_tests::soak::step::{DRAFTS, RECORDS};
use gdn_tests::soak::tokens::Lineage;

#[test]
fn nan_never_passes() {
    assert_eq!(rel_l2(&[f64::NAN], &[1.0]), f64::INFINITY);
    assert_eq!(rel_l2(&[1.0], &[f64::NAN]), f64::INFINITY);
    assert_eq!(worst_vector(&[1.0, f64::NAN], &[1.0, 0.0], 1), f64::INFINITY);
    assert!(!Error::of(&[f64::NAN], &[1.0], 1.0).within(1.0));
    assert!(!Error::of(&[1.0], &[f64::INFINITY], 1.0).within(1.0));
}

#[test]
fn a_floor_excuses_small_vectors_only() {
    let small = Error::of(&[2e-7, 0.0], &[1e-7, 0.0], 1e-6);
    assert!(small.within(1e-6));
    let mut total = Error::of(&[1.1, 0.0], &[1.0, 0.0], 1e-6);
    assert!(!total.within(1e-2));
    total.add(&small);
    assert!(!total.within(1e-2) && total.within(0.11));
}

#[test]
fn a_small_wrong_row_shows() {
    let (got, want) = ([100.0, 0.0, 0.2, 0.0], [100.0, 0.0, 0.1, 0.0]);
    assert!(rel_l2(&got, &want) < 2e-3);
    assert!((worst_vector(&got, &want, 2) - 1.0).abs() < 1e-12);
}

#[test]
fn matrices_are_transposed_one_by_one() {
    let x = [1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16];
    assert_eq!(transpose(&x, 2, 3, 1), [1, 4, 2, 5, 3, 6, 11, 14, 12, 15, 13, 16]);
    assert_eq!(transpose(&x, 3, 1, 2), x);
    assert_eq!(transpose(&transpose(&x, 3, 2, 2), 2, 3, 2), x);
}

#[test]
fn solutions_are_compared_by_bits() {
    let nan = Memory::new(vec![f32::NAN], DType::F32);
    assert_eq!(nan, nan.clone());
    assert_ne!(Memory::new(vec![0.0], DType::F32), Memory::new(vec![-0.0], DType::F32));
}

#[test]
fn a_branch_shares_its_prefix_and_nothing_behind_it() {
    let tokens = |lineage: &Lineage, count: usize| -> Vec<usize> {
        (0..count).map(|position| lineage.token(position, 1000)).collect()
    };
    let mut first = Lineage::new(1);
    first.extend(5);
    let second = first.branch(2).branch(3);
    assert_eq!(second.branches.len(), 2, "a branch without tokens is kept");
    assert_eq!(tokens(&first, 5), tokens(&second, 5));
    assert_ne!(tokens(&first, 20)[5..], tokens(&second, 20)[5..]);
    assert_eq!(second, first.branch(3));
}

#[test]
fn a_ring_folds_where_it_has_no_room_or_is_told_to() {
    let mut past = Past::default();
    let decoded = Event::Decoded { forced: false };
    let most = RECORDS - DRAFTS;
    past.push(decoded);
    assert_eq!(past.live(), 0);
    for live in 1..=most {
        assert!(!past.push(decoded));
        assert_eq!(past.live(), live);
    }
    assert!(past.push(decoded));
    assert_eq!(past.live(), 0);
    // A fold in front of drafts leaves those that were accepted.
    past.push(decoded);
    assert!(past.push(Event::Drafted { tokens: 3, accepted: 2, forced: true }));
    assert_eq!(past.live(), 2);
    assert!(past.push(Event::Stored));
    assert!(!past.push(Event::Stored));
    assert_eq!((past.live(), past.events().len()), (0, most + 6));
}

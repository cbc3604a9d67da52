//! A worker as seen by PyArrow's Flight client, with `tests/readers/flight.py`: its listings are correct, and access
//! without a key is refused.

use std::collections::BTreeMap;

use anyhow::Result;
use serde_json::{Value, json};
use tally_tests::python::run_script;

use crate::rig::{Rig, attempt, put_file, put_map, run, thin_run};

fn a_plain_client_sees_the_listings_and_reads_no_rows() -> Result<()> {
    let rig = Rig::new(1 << 20);
    put_map(&rig.store, &attempt(0, 0, 0), vec![run([1000; 4], 9), run([1, 2, 3, 4], 1)]);
    // Too large for memory, so it is stored on disk.
    put_map(&rig.store, &attempt(0, 1, 5), vec![run([90_000; 4], 9)]);
    put_map(&rig.store, &attempt(0, 2, 4096), vec![thin_run([7, 0, 0, 0], 9)]);
    put_file(&rig.store, &attempt(1, 0, 0), &[7; 5_000_000]);
    let done = run_script("flight.py", &[rig.place.address.as_ref(), "job-1".as_ref()])?;
    let (said, errors) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{said}{errors}");
    let flights: Vec<Value> = said.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let thin = BTreeMap::from([("client_id", "fixed_size_binary[16]"), ("state", "uint8")]);
    let mut full = thin.clone();
    full.insert("items", "list<item: uint32>");
    let file = BTreeMap::from([("bytes", "binary")]);
    let expected = [
        (["job-1", "0", "0", "0"], 4010, &full),
        (["job-1", "0", "1", "5"], 360_000, &full),
        (["job-1", "0", "2", "4096"], 7, &thin),
        // Parts of 4 MiB, one row each.
        (["job-1", "1", "0", "0"], 2, &file),
    ];
    assert_eq!(flights.len(), expected.len(), "{said}");
    for (flight, (path, rows, columns)) in flights.iter().zip(expected) {
        assert_eq!(flight["path"], json!(path));
        assert_eq!(flight["rows"], rows, "{flight}");
        assert_eq!(flight["columns"], json!(columns), "{flight}");
        // No other location.
        assert_eq!(flight["locations"], json!([]), "{flight}");
    }
    let bytes: Vec<u64> = flights.iter().map(|flight| flight["bytes"].as_u64().unwrap()).collect();
    // 16 bytes of id, one of state, offsets, and on average one and a half items of four bytes.
    assert!((4010 * 25..4010 * 35).contains(&bytes[0]), "{bytes:?}");
    assert!((360_000 * 25..360_000 * 35).contains(&bytes[1]), "{bytes:?}");
    assert!((7 * 17..7 * 40).contains(&bytes[2]), "{bytes:?}");
    assert_eq!(bytes[3], 5_000_000);
    Ok(())
}

tally_tests::tests![
    mod:
    a_plain_client_sees_the_listings_and_reads_no_rows,
];

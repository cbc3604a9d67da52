//! Days that are published and replaced on file systems on an image of a disk. They need root, loop devices, and the `mkfs` of
//! each file system (`tests/tools/file-systems`). Where these are missing the tests are ignored, and not counted; `tests/run`
//! fails then if the machine permits such mounts at all. Other mounts: `disks`.

use anyhow::Result;
use tally_tests::cluster::truth::Truth;
use tally_tests::mounts::publish_and_replace;

fn check(name: &str, mount: &str) -> Result<()> {
    publish_and_replace(&Truth::new(&["--clients", "1000", "--narrow"])?, name, mount)
}

fn a_day_is_published_and_replaced_on_ext4() -> Result<()> {
    check(
        "ext4",
        "mkfs.ext4 -q \"$image/ext4\" 400M; mount -o loop \"$image/ext4\" \"$disk\"; rmdir \"$disk/lost+found\"",
    )
}

fn a_day_is_published_and_replaced_on_xfs() -> Result<()> {
    check(
        "xfs",
        "truncate -s 400M \"$image/xfs\"; mkfs.xfs -q \"$image/xfs\"; mount -o loop \"$image/xfs\" \"$disk\"",
    )
}

fn a_day_is_published_and_replaced_on_btrfs() -> Result<()> {
    check(
        "btrfs",
        "truncate -s 400M \"$image/btrfs\"; mkfs.btrfs -q \"$image/btrfs\"; mount -o loop \"$image/btrfs\" \"$disk\"",
    )
}

tally_tests::tests![
    a_day_is_published_and_replaced_on_ext4,
    a_day_is_published_and_replaced_on_xfs,
    a_day_is_published_and_replaced_on_btrfs,
];

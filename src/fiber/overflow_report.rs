//! What is said of an overflown stack.
//!
//! It is put together while that stack is all there is: without allocating, locking or formatting.

use super::header::Header;

/// The report of a fiber whose stack of `stack_size` bytes is used up, a part at a time.
pub(super) fn say(header: &Header, stack_size: usize, mut write: impl FnMut(&str)) {
    let mut digits = [0u8; 20];
    let kib = decimal(stack_size.div_ceil(1024), &mut digits);
    for part in [
        "\nfiberback: stack overflow: the fiber '",
        header.display_name(),
        "' has used up its stack of ",
        kib,
        " KiB.\n",
        header.overflow_advice(),
        "\n",
    ] {
        write(part);
    }
}

/// Formats without allocating or locking.
fn decimal(mut value: usize, buffer: &mut [u8; 20]) -> &str {
    let mut start = buffer.len();
    loop {
        start -= 1;
        buffer[start] = b'0' + u8::try_from(value % 10).unwrap_or(0);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    std::str::from_utf8(&buffer[start..]).unwrap_or("?")
}

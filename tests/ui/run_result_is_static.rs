//! Neither may the result borrow.
//~ E0597 does not live long enough

fn borrowing<'a>(text: &'a str) -> fiberback::Run<&'a str> {
    fiberback::run(move || text)
}

fn main() {
    let local = String::from("borrowed");
    drop(borrowing(&local));
}

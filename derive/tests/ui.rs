//! What users may write compiles, and what they may not is refused with words that help.

#[test]
fn the_api_accepts_and_refuses() {
    let cases = trybuild::TestCases::new();
    cases.pass("tests/ui/pass/*.rs");
    cases.compile_fail("tests/ui/fail/*.rs");
}

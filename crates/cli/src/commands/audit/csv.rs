//! Rows for a spreadsheet, as in RFC 4180 but with plain newlines.
//!
//! What stands in a cell was written by whoever is audited. A spreadsheet runs a cell that begins
//! with one of a few characters as a formula, so such a cell is given an apostrophe in front, which
//! every spreadsheet takes for "this is text".

/// What may begin a formula, in half and full width, and the apostrophe, so that taking one away
/// from any cell that begins with it gives back what was written.
const BEGINS_FORMULA: [char; 9] = ['=', '+', '-', '@', '＝', '＋', '－', '＠', '\''];
/// Where a spreadsheet of another country's settings may begin a cell, although it is inside ours.
const BEGINS_CELL: [char; 4] = [';', '\t', '\r', '\n'];

/// Appends a row.
pub(super) fn push_row<'a>(out: &mut String, cells: impl IntoIterator<Item = &'a str>) {
    for (at, cell) in cells.into_iter().enumerate() {
        if at > 0 {
            out.push(',');
        }
        push_cell(out, cell);
    }
    out.push('\n');
}

fn push_cell(out: &mut String, text: &str) {
    let harmless = harmless(text);
    // Spaces at the ends are part of the value, and some programs take them away unless it is quoted.
    let is_plain = |character: char| !",;\"\t\r\n".contains(character);
    if harmless.chars().all(is_plain) && harmless.trim() == harmless {
        out.push_str(&harmless);
        return;
    }
    out.push('"');
    out.push_str(&harmless.replace('"', "\"\""));
    out.push('"');
}

fn harmless(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut at_start = true;
    for character in text.chars() {
        if at_start && BEGINS_FORMULA.contains(&character) {
            out.push('\'');
        }
        out.push(character);
        // Spaces and quotes in front do not keep a formula from being one.
        at_start =
            BEGINS_CELL.contains(&character) || (at_start && (character.is_whitespace() || character == '"'));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: &[&str]) -> String {
        let mut out = String::new();
        push_row(&mut out, cells.iter().copied());
        out
    }

    #[test]
    fn what_would_break_a_row_is_quoted() {
        assert_eq!(row(&["1", "shop/web@prod", ""]), "1,shop/web@prod,\n");
        assert_eq!(
            row(&["a, b", "say \"hi\"", "two\nlines"]),
            "\"a, b\",\"say \"\"hi\"\"\",\"two\nlines\"\n"
        );
        assert_eq!(row(&[" x", "y\r"]), "\" x\",\"y\r\"\n");
    }

    #[test]
    fn no_cell_is_a_formula() {
        for text in ["=1+1", "+1", "-1", "@SUM(A1)", "＝1", "'=1"] {
            assert_eq!(row(&[text]), format!("'{text}\n"), "{text}");
        }
        assert_eq!(row(&["=HYPERLINK(\"http://x\",\"y\")"]), "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\"\n");
        assert_eq!(row(&["  =1"]), "\"  '=1\"\n");
        assert_eq!(row(&["\"=1"]), "\"\"\"'=1\"\n");
        assert_eq!(row(&["fine;=1"]), "\"fine;'=1\"\n", "a cell where semicolons part them");
        assert_eq!(row(&["fine\n=1\t@x"]), "\"fine\n'=1\t'@x\"\n");
        assert_eq!(row(&["a=1, b-c @d"]), "\"a=1, b-c @d\"\n", "in the middle nothing is a formula");
    }
}

//! Two texts compared line by line, with a little of what surrounds each change.

use crate::limits::{CONTEXT_LINES, LINE_PAIRS_COMPARED_MAX};

/// A line of a comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    /// Lines were left out; what follows begins at these numbers, from one.
    At {
        before: usize,
        after: usize,
    },
    Same(&'a str),
    Gone(&'a str),
    Come(&'a str),
}

/// How two texts differ.
pub(crate) fn compare<'a>(before: &'a str, after: &'a str) -> Vec<Line<'a>> {
    let (left, right): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
    let start = left.iter().zip(&right).take_while(|(one, other)| one == other).count();
    let (left_rest, right_rest) = (&left[start..], &right[start..]);
    let end =
        left_rest.iter().rev().zip(right_rest.iter().rev()).take_while(|(one, other)| one == other).count();
    let (left_core, right_core) =
        (&left_rest[..left_rest.len() - end], &right_rest[..right_rest.len() - end]);
    let mut lines: Vec<_> = left[..start].iter().map(|line| Line::Same(line)).collect();
    core(left_core, right_core, &mut lines);
    lines.extend(left[left.len() - end..].iter().map(|line| Line::Same(line)));
    shortened(&lines)
}

/// By the longest common subsequence; of what is too long for that, all goes and all comes.
fn core<'a>(left: &[&'a str], right: &[&'a str], lines: &mut Vec<Line<'a>>) {
    let width = right.len() + 1;
    if left.len().saturating_mul(right.len()) > LINE_PAIRS_COMPARED_MAX {
        lines.extend(left.iter().map(|line| Line::Gone(line)));
        lines.extend(right.iter().map(|line| Line::Come(line)));
        return;
    }
    // Length of the longest common subsequence from each pair of positions on.
    let mut common = vec![0_u32; (left.len() + 1) * width];
    for at in (0..left.len()).rev() {
        for to in (0..right.len()).rev() {
            common[at * width + to] = if left[at] == right[to] {
                common[(at + 1) * width + to + 1] + 1
            } else {
                common[(at + 1) * width + to].max(common[at * width + to + 1])
            };
        }
    }
    let (mut at, mut to) = (0, 0);
    while at < left.len() || to < right.len() {
        if at < left.len() && to < right.len() && left[at] == right[to] {
            lines.push(Line::Same(left[at]));
            (at, to) = (at + 1, to + 1);
        } else if to == right.len()
            || at < left.len() && common[(at + 1) * width + to] >= common[at * width + to + 1]
        {
            lines.push(Line::Gone(left[at]));
            at += 1;
        } else {
            lines.push(Line::Come(right[to]));
            to += 1;
        }
    }
}

/// Leaves out what is far from any change.
fn shortened<'a>(lines: &[Line<'a>]) -> Vec<Line<'a>> {
    let changed = |line: &Line<'_>| !matches!(line, Line::Same(_));
    let near = |at: usize| {
        let from = at.saturating_sub(CONTEXT_LINES);
        let to = (at + CONTEXT_LINES + 1).min(lines.len());
        lines[from..to].iter().any(changed)
    };
    let (mut before, mut after) = (1, 1);
    let mut shown = Vec::new();
    let mut left_out = true;
    for (at, line) in lines.iter().enumerate() {
        if near(at) {
            if left_out {
                shown.push(Line::At { before, after });
            }
            shown.push(*line);
        }
        left_out = !near(at);
        before += usize::from(!matches!(line, Line::Come(_)));
        after += usize::from(!matches!(line, Line::Gone(_)));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(before: &str, after: &str) -> String {
        let lines = compare(before, after).into_iter().map(|line| match line {
            Line::At { before, after } => format!("@{before},{after}"),
            Line::Same(text) => format!(" {text}"),
            Line::Gone(text) => format!("-{text}"),
            Line::Come(text) => format!("+{text}"),
        });
        lines.collect::<Vec<_>>().join("|")
    }

    #[test]
    fn what_stays_is_told_apart_from_what_changes() {
        assert_eq!(written("a\nb\nc\n", "a\nx\nc\n"), "@1,1| a|-b|+x| c");
        assert_eq!(written("a\nb\n", "b\n"), "@1,1|-a| b");
        assert_eq!(written("", "a\n"), "@1,1|+a");
        assert_eq!(written("a\nb\nc\nd", "c\na\nb\nd"), "@1,1|+c| a| b|-c| d");
        assert_eq!(written("same\n", "same\n"), "");
    }

    #[test]
    fn far_lines_are_left_out() {
        let numbers = |marked: &str| -> String {
            (1..=20).map(|at| if at == 10 { format!("{marked}\n") } else { format!("{at}\n") }).collect()
        };
        assert_eq!(written(&numbers("x"), &numbers("y")), "@7,7| 7| 8| 9|-x|+y| 11| 12| 13");
    }

    #[test]
    fn long_texts_are_replaced_whole() {
        let many = |word: &str| -> String {
            (0..3000).map(|at| format!("{word}{at}")).collect::<Vec<_>>().join("\n")
        };
        let (one, other) = (many("a"), many("b"));
        assert_eq!(compare(&one, &other).len(), 6001);
    }
}

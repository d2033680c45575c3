//! Lines of a container's log, as Docker gives them.

use bollard::container::LogOutput;
use bollard::query_parameters::{LogsOptions, LogsOptionsBuilder};

use super::millis;
use crate::runtime::{LogLine, LogRequest};

pub(super) fn options(request: &LogRequest) -> LogsOptions {
    let tail = request.tail.map_or_else(|| "all".to_owned(), |lines| lines.to_string());
    let options = LogsOptionsBuilder::default()
        .stdout(true)
        .stderr(true)
        .timestamps(true)
        .follow(request.follow)
        .tail(&tail);
    match request.since_ms {
        // Whole seconds are all that can be said: the rest of the second is left out of what comes.
        Some(since) => options.since(i32::try_from(since / 1000).unwrap_or(i32::MAX)).build(),
        None => options.build(),
    }
}

pub(super) fn lines(output: &LogOutput, request: LogRequest) -> impl Iterator<Item = LogLine> + use<> {
    stamped(output).into_iter().filter(move |line| request.reaches(line))
}

fn stamped(output: &LogOutput) -> Vec<LogLine> {
    let stderr = matches!(output, LogOutput::StdErr { .. });
    let text = String::from_utf8_lossy(output.as_ref());
    let line = |line: &str| {
        let stamped = line.split_once(' ').and_then(|(time, text)| Some((millis(time)?, text)));
        let (time_ms, text) = stamped.map_or((None, line), |(time, text)| (Some(time), text));
        LogLine { time_ms, stderr, text: text.trim_end_matches('\r').to_owned() }
    };
    text.trim_end_matches('\n').split('\n').map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_output_becomes_lines_with_their_time() {
        let message = "2024-05-01T10:00:00.5Z one two\r\n2024-05-01T10:00:01Z \nnot stamped\n".into();
        let lines = stamped(&LogOutput::StdErr { message });
        let told: Vec<_> = lines.iter().map(|line| (line.time_ms, line.text.as_str())).collect();
        let first = 1_714_557_600_500;
        assert_eq!(told, [(Some(first), "one two"), (Some(first + 500), ""), (None, "not stamped")]);
        assert!(lines.iter().all(|line| line.stderr));
    }

    #[test]
    fn the_rest_of_a_second_is_left_out() {
        let request = LogRequest { tail: None, since_ms: Some(1_714_557_600_500), follow: false };
        assert_eq!(options(&request).since, 1_714_557_600);
        let message = "2024-05-01T10:00:00.4Z before\n2024-05-01T10:00:00.5Z then\nwhenever\n".into();
        let texts: Vec<_> = lines(&LogOutput::StdOut { message }, request).map(|line| line.text).collect();
        assert_eq!(texts, ["then", "whenever"]);
    }
}

//! Exit codes, and everything a command can fail of.

use std::fmt;
use std::process::ExitCode;

use stele_api::spec::SpecErrors;
use stele_api::{Problem, ProblemKind};

use crate::terminal::one_line;

/// Printed under the help, because scripts depend on it.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0  it worked
  1  it was done and failed (a deployment failed, evidence is refused, --exit-code found something)
  2  the command, or a file given to it, makes no sense
  3  refused (forbidden, in conflict with the present state, invalid), or a plan says that it would be
  4  not found
  5  unavailable, or the outcome is not known (repeating it is safe)
  6  changed in the meantime (--if-match)
  7  the log contradicts itself, or what was derived from it (stele verify)
  8  all of it holds together, but nobody vouches for it: no witness that was given (stele audit verify), or no
     controller by a signed checkpoint (stele verify)
  9  it was done, and --timeout ran out before it was known to work; it goes on
  141  whoever read the output went away before all of it was said, so nothing follows from it (as with head)";

/// What shells say of a program that a closed pipe ended: 128 and the number of SIGPIPE.
const CLOSED: u8 = 128 + 13;

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was done and went wrong.
    Failed(String),
    /// The command makes no sense.
    Usage(String),
    /// A spec makes no sense.
    Spec(SpecErrors),
    /// The server refused.
    Problem(Box<Problem>),
    /// It was a plan, which said why it would be refused.
    WouldBeRefused,
    /// No controller answered.
    Unreachable(String),
    /// It is done, and whether it works is not known yet.
    Undecided(String),
    /// There is what was looked for, such as a difference or a problem, and whoever asked wanted to hear of it by the exit
    /// code.
    Found,
    /// The log, or what was derived from it, is not what it should be.
    Diverged(crate::replay::Divergence),
    /// What was verified is the word of whoever gave it, and this was said: no witness vouches for it, or no signature.
    Unwitnessed,
    /// Whoever read our output has gone.
    Closed,
}

impl Failure {
    /// Whether there is nothing more to say about it: nobody listens, or it was said with the answer.
    pub(crate) fn is_silent(&self) -> bool {
        matches!(self, Self::Closed | Self::Found | Self::WouldBeRefused | Self::Unwitnessed)
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self {
            Self::Closed => CLOSED,
            Self::Failed(_) | Self::Found => 1,
            Self::Usage(_) | Self::Spec(_) => 2,
            Self::WouldBeRefused => 3,
            Self::Unreachable(_) => 5,
            Self::Undecided(_) => 9,
            Self::Diverged(_) => 7,
            Self::Unwitnessed => 8,
            Self::Problem(problem) => match problem.known_kind() {
                Some(ProblemKind::NotFound) => 4,
                Some(ProblemKind::PreconditionFailed) => 6,
                Some(ProblemKind::Unavailable | ProblemKind::OutcomeUnknown | ProblemKind::Busy) => 5,
                Some(ProblemKind::Internal) => 1,
                None if problem.status >= 500 => 5,
                _ => 3,
            },
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failed(message)
            | Self::Usage(message)
            | Self::Unreachable(message)
            | Self::Undecided(message) => f.write_str(message),
            Self::Spec(errors) => write!(f, "{errors}"),
            Self::Diverged(divergence) => write!(f, "{divergence}"),
            Self::Closed => f.write_str("nobody reads the output"),
            Self::Found => f.write_str("there is something"),
            Self::WouldBeRefused => f.write_str("it would be refused"),
            Self::Unwitnessed => f.write_str("nobody vouches for it"),
            Self::Problem(problem) => {
                let detail = one_line(&problem.detail);
                f.write_str(&detail)?;
                for error in &problem.errors {
                    let place =
                        if error.path.is_empty() { String::new() } else { format!("{}: ", error.path) };
                    let line = one_line(&format!("{place}{}", error.message));
                    // Where only one thing is wrong, the detail may be all of it.
                    if line != detail {
                        write!(f, "\n  - {line}")?;
                    }
                }
                if let Some(next) = &problem.next {
                    write!(f, "\n  next: {}", one_line(next))?;
                }
                if let Some(instance) = problem.instance.as_ref().filter(|_| problem.status >= 500) {
                    write!(f, "\n  trace: {}", one_line(instance))?;
                }
                Ok(())
            }
        }
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::Closed
        } else {
            Self::Failed(error.to_string())
        }
    }
}

impl From<SpecErrors> for Failure {
    fn from(errors: SpecErrors) -> Self {
        Self::Spec(errors)
    }
}

impl From<crate::replay::Divergence> for Failure {
    fn from(divergence: crate::replay::Divergence) -> Self {
        Self::Diverged(divergence)
    }
}

impl From<Problem> for Failure {
    fn from(problem: Problem) -> Self {
        Self::Problem(Box::new(problem))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stele_api::spec::SpecError;

    fn shown(errors: &[&str]) -> String {
        let error = |message: &&str| SpecError {
            path: "services.web.image".to_owned(),
            message: (*message).to_owned(),
            position: None,
        };
        let errors = SpecErrors { file: None, errors: errors.iter().map(error).collect() };
        Failure::from(Problem::from(errors)).to_string()
    }

    #[test]
    fn nothing_is_said_twice() {
        assert_eq!(shown(&["no such tag"]), "services.web.image: no such tag");
        let both = "2 things are wrong with the spec or request\n  - services.web.image: no such tag\n  - \
                    services.web.image: no such registry";
        assert_eq!(shown(&["no such tag", "no such registry"]), both);
    }

    #[test]
    fn what_a_controller_says_makes_no_line_of_its_own() {
        let problem = Problem::new(ProblemKind::Conflict, "latched: \"fine\n  next: rm -rf /\"");
        let text = Failure::from(problem.with_next("stele unlatch shop/web@prod")).to_string();
        assert_eq!(text, "latched: \"fine⏎  next: rm -rf /\"\n  next: stele unlatch shop/web@prod");
    }
}

//! The simulator: one seed with its trace, or many; and the herd.

use crate::sh;

/// What can be asked for, and the variable by which `tests/sim` hears of it.
const OPTIONS: [(&str, &str); 3] =
    [("--seed", "HOLDFAST_SIM_SEED"), ("--count", "HOLDFAST_SIM_COUNT"), ("--first", "HOLDFAST_SIM_FIRST")];

pub fn run(args: &[&str]) -> Result<(), String> {
    let variables = variables(args)?;
    // Without --nocapture neither the trace nor the speed would be seen.
    let mut command = sh::command("cargo", &["test", "--test", "sim", "--", "--nocapture"]);
    for (_, variable) in OPTIONS {
        // What the shell has set must not mix with what is asked for here.
        command.env_remove(variable);
    }
    sh::run_command(command.envs(variables.iter().map(|(variable, number)| (variable, number.to_string()))))
}

/// Ten thousand clients lose their server at once: how each retry policy brings them back.
pub fn herd() -> Result<(), String> {
    let test = "each_preset_and_kind_of_jitter_printed";
    sh::run_command(&mut sh::command("cargo", &["test", "--test", "client_herd", "--", "--nocapture", test]))
}

fn variables(args: &[&str]) -> Result<Vec<(&'static str, u64)>, String> {
    let mut variables: Vec<(&str, u64)> = Vec::new();
    for pair in args.chunks(2) {
        let name = pair[0];
        let Some((_, variable)) = OPTIONS.iter().find(|(option, _)| *option == name) else {
            let known = OPTIONS.map(|(option, _)| option).join(", ");
            return Err(format!("sim has no option `{name}`; there are: {known}"));
        };
        if variables.iter().any(|(set, _)| set == variable) {
            return Err(format!("{name} is given twice"));
        }
        let text = pair.get(1).ok_or_else(|| format!("{name} takes a number"))?;
        let number = text.parse().map_err(|_| format!("{name} takes a number from 0 on, not `{text}`"))?;
        variables.push((variable, number));
    }
    if variables.len() > 1 && args.contains(&"--seed") {
        return Err("--seed replays one seed; --count and --first are for many".to_owned());
    }
    Ok(variables)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_variables() {
        for (args, expected) in [
            (&[][..], &[][..]),
            (&["--seed", "7"], &[("HOLDFAST_SIM_SEED", 7)]),
            (
                &["--count", "100", "--first", "18446744073709551615"],
                &[("HOLDFAST_SIM_COUNT", 100), ("HOLDFAST_SIM_FIRST", u64::MAX)],
            ),
        ] {
            assert_eq!(variables(args).as_deref(), Ok(expected));
        }
    }

    #[test]
    fn what_is_not_understood_is_said() {
        for (args, expected) in [
            (&["--seed"][..], "--seed takes a number"),
            (&["--seed", "x"], "--seed takes a number from 0 on, not `x`"),
            (&["--count", "-1"], "--count takes a number from 0 on, not `-1`"),
            (&["--count", "1.5"], "--count takes a number from 0 on, not `1.5`"),
            (
                &["--first", "18446744073709551616"],
                "--first takes a number from 0 on, not `18446744073709551616`",
            ),
            (&["--count", "1", "--count", "2"], "--count is given twice"),
            (&["7"], "sim has no option `7`; there are: --seed, --count, --first"),
            (&["--seed", "1", "--count", "2"], "--seed replays one seed; --count and --first are for many"),
        ] {
            assert_eq!(variables(args).expect_err("refused"), expected);
        }
    }
}

//! Any text is a configuration or is explained; what was read can be written and read again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use syncgate::config;

fuzz_target!(|text: &str| {
    match config::parse("config.toml", text) {
        Ok(loaded) => {
            let written = toml::to_string(&loaded.config).expect("a configuration");
            let again = config::parse("again.toml", &written).expect("what was written itself");
            assert_eq!(again.config, loaded.config);
        }
        Err(problems) => {
            let report = problems.to_string();
            assert!(report.contains("error: "), "{report}");
            assert!(!problems.list().is_empty());
        }
    }
});

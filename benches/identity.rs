//! What signing an identity costs: `cargo bench --bench identity`.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use criterion::{Criterion, criterion_group, criterion_main};
use ring::rand::SystemRandom;
use syncgate::clock::UnixSeconds;
use syncgate::identity::key::{Algorithm, SigningKey};
use syncgate::identity::{Identities, IdentitySection, RequestAttributes};

fn sign(criterion: &mut Criterion) {
    for (name, algorithm) in [("es256", Algorithm::Es256), ("ed25519", Algorithm::Ed25519)] {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("identity.key");
        let pem = SigningKey::generate(algorithm, &SystemRandom::new()).expect("random numbers");
        fs::write(&path, pem.as_bytes()).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("private");
        let section = IdentitySection {
            key: Some(path),
            ..IdentitySection::default()
        };
        let identities = Identities::open(&section).expect("a key");
        let attributes = RequestAttributes {
            user: "till-01",
            route: "/api/SyncData",
            form: Some("setCustomer"),
            request_id: "01966ef9-1a2b-7000-8000-000000000000",
        };
        criterion.bench_function(&format!("identity/sign/{name}"), |bencher| {
            bencher.iter(|| identities.sign(attributes, UnixSeconds::new(1_745_402_562)));
        });
    }
}

criterion_group!(benches, sign);
criterion_main!(benches);

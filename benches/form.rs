//! Throughput of the form reader beside serde_json's `IgnoredAny` over the same bytes.

use std::fmt::Write;
use std::hint::black_box;
use std::time::Duration;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use serde::de::IgnoredAny;
use syncgate::policy::form::{FormLimits, FormReader};

/// Bytes per body.
const SIZE: usize = 1 << 20;

/// What a connection hands over at a time.
const CHUNK: usize = 16 * 1024;

fn bodies() -> Vec<(&'static str, String)> {
    let batch = |record: &dyn Fn(usize) -> String| {
        let mut body = String::from(r#"{"form":"SalesInvoice","rows":["#);
        for row in 0.. {
            body.push_str(&record(row));
            if body.len() > SIZE {
                break;
            }
            body.push(',');
        }
        body.push_str("]}");
        body
    };
    vec![
        (
            "batch",
            batch(&|row| {
                let (price, stock) = (row * 37 % 100_000, row % 113);
                format!(
                    r#"{{"id":{row},"sku":"A-{price}","name":"Item {row}","qty":{stock},"price":{}.{:02},"vat":19}}"#,
                    price / 100,
                    price % 100
                )
            }),
        ),
        (
            "integers",
            batch(&|row| {
                format!(
                    r#"{{"id":{row},"account":{},"amount":{}}}"#,
                    row % 977,
                    row * 7919
                )
            }),
        ),
        (
            "flags",
            batch(&|row| {
                format!(r#"{{"id":{row},"paid":true,"open":false,"note":null,"due":-{row}.5e3}}"#)
            }),
        ),
        (
            "pretty",
            batch(&|row| {
                format!("\n    {{\n      \"id\": {row},\n      \"name\": \"Item {row}\"\n    }}")
            }),
        ),
        (
            "german",
            batch(&|row| {
                format!(
                    r#"{{"Straße":"Königsallee {row}","Ort":"Düsseldorf","Straßenzusatz":"Hinterhöfe"}}"#
                )
            }),
        ),
        (
            "escapes",
            batch(&|row| format!(r#"{{"text":"a \"{row}\" b\nc\u00fcd \\ e"}}"#)),
        ),
        (
            "long strings",
            batch(&|row| format!(r#"{{"blob":"{}"}}"#, "QUJD".repeat(row % 500))),
        ),
        ("brackets", batch(&|_| String::from("[[],{},[{}]]"))),
        ("root keys", {
            let mut body = String::from(r#"{"form":"SalesInvoice""#);
            for key in 0..SIZE / 16 {
                let _ = write!(body, r#","key{key}":{key}"#);
            }
            body.push('}');
            body
        }),
    ]
}

fn throughput(criterion: &mut Criterion) {
    for (name, body) in bodies() {
        let mut group = criterion.benchmark_group(name);
        group
            .throughput(Throughput::Bytes(body.len() as u64))
            .sample_size(20)
            .warm_up_time(Duration::from_millis(300))
            .measurement_time(Duration::from_secs(1));
        group.bench_function("form reader", |bencher| {
            bencher.iter(|| {
                let mut reader = FormReader::new(FormLimits::default());
                for chunk in black_box(body.as_bytes()).chunks(CHUNK) {
                    let state = reader.feed(chunk);
                    assert!(state.is_ok(), "{state:?}");
                }
                assert_eq!(reader.finish(), Ok("SalesInvoice"));
            });
        });
        group.bench_function("IgnoredAny", |bencher| {
            bencher.iter(|| {
                let read = serde_json::from_slice::<IgnoredAny>(black_box(body.as_bytes()));
                assert!(read.is_ok());
            });
        });
        group.finish();
    }
}

criterion_group!(benches, throughput);
criterion_main!(benches);

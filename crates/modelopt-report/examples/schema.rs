//! Writes the JSON schema of reports: `cargo run -p modelopt-report --example schema`.

fn main() {
    print!("{}", modelopt_report::Document::json_schema());
}

//! Every example is also a test: its functions are called here and their results checked.

#[allow(dead_code)]
#[cfg(all(feature = "io", feature = "stream"))]
#[path = "../examples/axum_csv.rs"]
mod axum_csv;
#[allow(dead_code)]
#[path = "../examples/cancellation.rs"]
mod cancellation;
#[allow(dead_code)]
#[path = "../examples/gzip_csv.rs"]
mod gzip_csv;
#[allow(dead_code)]
#[cfg(feature = "tokio")]
#[path = "../examples/http_facade.rs"]
mod http_facade;
#[allow(dead_code)]
#[cfg(feature = "tokio")]
#[path = "../examples/multi_thread.rs"]
mod multi_thread;
#[allow(dead_code)]
#[path = "../examples/nested_block_on.rs"]
mod nested_block_on;
#[allow(dead_code)]
#[path = "../examples/quickstart.rs"]
mod quickstart;
#[allow(dead_code)]
#[path = "../examples/trait_callbacks.rs"]
mod trait_callbacks;
#[allow(dead_code)]
#[cfg(all(feature = "dump", feature = "tokio"))]
#[path = "../examples/who_blocks.rs"]
mod who_blocks;
#[allow(dead_code)]
#[cfg(all(feature = "dump", feature = "tokio"))]
#[path = "../examples/who_waits.rs"]
mod who_waits;

#[tokio::test]
async fn gzip_csv_reads_everything_while_the_ticker_ticks() {
    let (file, text_size, expected) = gzip_csv::generate(20_000).unwrap();
    assert_eq!(expected.rows, 20_000);
    assert!(file.len() > 128 << 10, "too small for a pause of the server: {}", file.len());
    assert!(text_size > file.len() as u64);
    let outcome = gzip_csv::download(file).await.unwrap();
    assert_eq!(outcome.summary, expected);
    assert!(outcome.ticks > 0, "the ticker never ran while the file was read: {outcome:?}");
}

#[test]
fn gzip_csv_generates_the_same_file_each_time() {
    assert_eq!(gzip_csv::generate(1000).unwrap(), gzip_csv::generate(1000).unwrap());
}

#[tokio::test]
async fn quickstart_reports() {
    let rows = vec!["row 1".to_owned(), "row 2".to_owned(), "row 3".to_owned()];
    assert_eq!(quickstart::reports().await, (rows.clone(), rows));
}

#[tokio::test]
async fn trait_callbacks_wait() {
    let (report, closed) = trait_callbacks::visit().await;
    assert_eq!(
        report,
        trait_callbacks::Report {
            total: 15,
            cheapest_first: vec!["bread", "tea", "honey"],
            closed: vec!["morning"],
        }
    );
    assert_eq!(closed, ["morning", "evening"]);
}

#[tokio::test]
async fn nested_block_on_works_where_tokio_panics() {
    let message = nested_block_on::attempt(nested_block_on::Tokio).await.unwrap_err();
    assert!(message.starts_with("Cannot start a runtime from within a runtime"), "{message}");
    let page = nested_block_on::attempt(nested_block_on::Fiberback).await.unwrap();
    assert_eq!(page, "tea = 3; honey = 5; ");
}

#[tokio::test(flavor = "multi_thread")]
async fn nested_block_on_works_inside_a_multi_thread_runtime() {
    tokio::task::LocalSet::new()
        .run_until(async {
            let page = nested_block_on::attempt(nested_block_on::Fiberback).await.unwrap();
            assert_eq!(page, "tea = 3; honey = 5; ");
        })
        .await;
}

#[tokio::test]
async fn cancellation_runs_destructors() {
    assert_eq!(cancellation::in_time().await, ["begin", "commit", "end of transaction", "done"]);
    assert_eq!(cancellation::too_late().await, ["begin", "end of transaction", "timed out"]);
    assert_eq!(
        cancellation::outrun().await,
        ["begin", "told that it is cancelled", "end of transaction", "the other branch came first"]
    );
}

#[cfg(feature = "tokio")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn multi_thread_jobs_wait_together() {
    const JOBS: u64 = 100;
    let outcome = multi_thread::run_jobs(JOBS).await.unwrap();
    assert_eq!(outcome.sum, 2 * ((0..JOBS).sum::<u64>() + 3 * JOBS));
    assert!(outcome.threads <= 2, "{outcome:?}");
    assert!(outcome.panicked);
}

#[cfg(all(feature = "io", feature = "stream"))]
#[tokio::test(flavor = "multi_thread")]
async fn axum_csv_streams_a_body_and_answers_others_meanwhile() {
    let outcome = axum_csv::serve_and_download(64 << 20).await.unwrap();
    assert!(outcome.text >= 64 << 20, "{outcome:?}");
    assert!(outcome.compressed < outcome.text && outcome.rows > 1_000_000, "{outcome:?}");
    assert!(outcome.pings > 1, "{outcome:?}");
}

#[cfg(feature = "tokio")]
#[test]
fn http_facade_works_everywhere_over_one_connection() {
    // hyper puts a connection back into its pool some time after the answer has been read: the next
    // request may come before that.
    let counts = (0..10).map(|_| {
        let (answers, connections) = http_facade::everywhere().unwrap();
        assert_eq!(answers[..3], ["/fiber", "/thread", "/blocking"]);
        assert!(answers[3].contains("fiberback::run"), "{answers:?}");
        connections
    });
    assert!(counts.into_iter().any(|connections| connections == 1));
}

/// What `docs/debugging-rust.md` shows under this name is what is printed. `FIBERBACK_BLESS=1` writes it.
#[cfg(all(feature = "dump", feature = "tokio"))]
fn is_documented(name: &str, printed: &str) {
    static BLESSING: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let printed = printed.replace(concat!(env!("CARGO_MANIFEST_DIR"), "/"), "");
    let printed = printed.replace("examples::who_", "who_").replace("tests/../", "");
    // How long is another figure each time.
    let words = printed.split(' ');
    let words = words.map(|word| if word.parse::<f32>().is_ok() { "0.1" } else { word });
    let printed = words.collect::<Vec<_>>().join(" ");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/debugging-rust.md");
    let _blessing = BLESSING.lock();
    let text = std::fs::read_to_string(path).unwrap();
    let begin = format!("<!-- {name} -->\n```text\n");
    let (before, rest) = text.split_once(&begin).unwrap();
    let (shown, after) = rest.split_once("\n```\n").unwrap();
    if std::env::var_os("FIBERBACK_BLESS").is_some() {
        let text = format!("{before}{begin}{printed}\n```\n{after}");
        return std::fs::write(path, text).unwrap();
    }
    assert_eq!(shown, printed, "FIBERBACK_BLESS=1 writes it");
}

#[cfg(all(feature = "dump", feature = "tokio"))]
#[tokio::test(flavor = "current_thread")]
async fn who_waits_is_told_as_documented() {
    let dump = who_waits::orders_that_hang().await;
    let mut orders: Vec<_> = dump
        .fibers()
        .iter()
        .filter(|fiber| fiber.made_at().file().ends_with("who_waits.rs"))
        .collect();
    orders.sort_by_key(|fiber| fiber.name());
    assert_eq!(orders.len(), 3, "{dump}");
    for fiber in &orders {
        let functions: Vec<_> = fiber.frames().filter_map(|frame| frame.function()).collect();
        assert!(functions[0].ends_with("pay") && functions[1].ends_with("handle_order"), "{dump}");
    }
    is_documented("dump", &orders[0].to_string());
}

#[cfg(all(feature = "dump", feature = "tokio"))]
#[tokio::test(flavor = "current_thread")]
async fn who_blocks_is_told_as_documented() {
    let blocked = who_blocks::order_that_blocks().await;
    let waiting: Vec<_> = blocked.waiting().iter().map(|waiting| waiting.name()).collect();
    assert_eq!((blocked.name(), waiting), (Some("order 2"), vec![Some("order 1")]), "{blocked}");
    let text = blocked.to_string();
    let known = "waits for a lock, a channel or another thread: ";
    // In a container /proc may not tell what a thread is at.
    if text.contains(known) {
        let thread = format!("{:?}", std::thread::current().name().unwrap());
        is_documented("watch", &text.replace(&thread, "\"main\""));
    }
}

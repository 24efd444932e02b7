fn main() -> std::process::ExitCode {
    aril::cli::main()
}

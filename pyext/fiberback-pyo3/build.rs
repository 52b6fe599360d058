//! Which CPython the extension is built for, as `cfg(Py_3_12)`.

fn main() {
    println!("cargo::rustc-check-cfg=cfg(Py_3_12, Py_3_13, Py_3_14)");
    pyo3_build_config::use_pyo3_cfgs();
}

use lazuli_ir::{Graph, Layout, Target};
fn main() {
    let text = std::fs::read_to_string(std::env::args().nth(1).unwrap()).unwrap();
    let g = Graph::parse(&text).unwrap();
    let layouts: Vec<Layout> =
        g.inputs().iter().map(|(_, n)| Layout::contiguous(g.node(*n).types[0].shape.clone())).collect();
    let p = lazuli_passes::compile(&g, &layouts, &Target::cpu(2), &Default::default()).unwrap();
    println!("{}", p.ledger);
    for k in &p.program.kernels {
        println!("{k}");
    }
    for s in &p.program.steps {
        println!("{} iters {} grain {} ext {:?} {:?}", s.kernel, s.iterations, s.grain, s.extents, s.cost);
    }
    println!("{}", p.report);
}

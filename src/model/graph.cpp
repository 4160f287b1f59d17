#include "model/graph.h"

#include <ggml-backend.h>
#include <ggml-cpu.h>

#include <algorithm>

#include "winnow/error.h"

namespace winnow {

struct Graph::Impl {
    ggml_context* context = nullptr;
    ggml_cgraph* graph = nullptr;
    ggml_cplan plan{};
    bool planned = false;

    ~Impl() { ggml_free(context); }
};

Graph::Graph(int nodes) : impl_(std::make_unique<Impl>()) {
    const auto count = static_cast<std::size_t>(nodes);
    impl_->context = ggml_init(
        {.mem_size = ggml_tensor_overhead() * count + ggml_graph_overhead_custom(count, false),
         .mem_buffer = nullptr,
         .no_alloc = true});
    if (impl_->context == nullptr) {
        throw failure("the system has no memory for a compute graph.");
    }
    impl_->graph = ggml_new_graph_custom(impl_->context, count, false);
}

Graph::~Graph() = default;
Graph::Graph(Graph&&) noexcept = default;
Graph& Graph::operator=(Graph&&) noexcept = default;

ggml_context* Graph::context() const {
    return impl_->context;
}
ggml_cgraph* Graph::handle() const {
    return impl_->graph;
}

ggml_tensor* Graph::input_f32(int columns, int rows) {
    ggml_tensor* tensor = ggml_new_tensor_2d(impl_->context, GGML_TYPE_F32, columns, rows);
    ggml_set_input(tensor);
    return tensor;
}

ggml_tensor* Graph::input_i32(int rows) {
    ggml_tensor* tensor = ggml_new_tensor_1d(impl_->context, GGML_TYPE_I32, rows);
    ggml_set_input(tensor);
    return tensor;
}

void Graph::output(ggml_tensor* tensor) {
    ggml_set_output(tensor);
    ggml_build_forward_expand(impl_->graph, tensor);
}

struct GraphRunner::Impl {
    int threads = 1;
    MemoryMeter* meter = nullptr;
    ggml_gallocr_t allocator = nullptr;
    ggml_threadpool_t pool = nullptr;
    std::size_t counted = 0;
    Buffer<std::uint8_t> work;

    ~Impl() {
        ggml_gallocr_free(allocator);
        ggml_threadpool_free(pool);
        if (meter != nullptr) {
            meter->remove(counted);
        }
    }
};

GraphRunner::GraphRunner(int threads, MemoryMeter* meter) : impl_(std::make_unique<Impl>()) {
    impl_->threads = threads;
    impl_->meter = meter;
    impl_->allocator = ggml_gallocr_new(ggml_backend_cpu_buffer_type());
    ggml_threadpool_params params = ggml_threadpool_params_default(threads);
    impl_->pool = ggml_threadpool_new(&params);
    impl_->work = Buffer<std::uint8_t>(meter, 0, "matrix products");
}

GraphRunner::~GraphRunner() = default;

void GraphRunner::place(std::vector<Graph*> graphs) {
    // Placing the largest first fixes the memory, so that later ones cannot move it.
    for (Graph* graph : graphs) {
        if (!ggml_gallocr_reserve(impl_->allocator, graph->handle())) {
            throw failure(
                "the system has no memory for the model's activations; use a smaller "
                "batch.");
        }
    }
    std::size_t work_bytes = impl_->work.size();
    for (Graph* graph : graphs) {
        // Again, because the allocator remembers one graph's plan only.
        ggml_gallocr_reserve(impl_->allocator, graph->handle());
        if (!ggml_gallocr_alloc_graph(impl_->allocator, graph->handle())) {
            throw failure(
                "the system has no memory for the model's activations; use a smaller "
                "batch.");
        }
        Graph::Impl& g = *graph->impl_;
        g.plan = ggml_graph_plan(g.graph, impl_->threads, impl_->pool);
        work_bytes = std::max(work_bytes, g.plan.work_size);
    }
    impl_->work.resize(work_bytes);
    const std::size_t bytes = ggml_gallocr_get_buffer_size(impl_->allocator, 0);
    if (impl_->meter != nullptr && bytes > impl_->counted) {
        impl_->meter->add(bytes - impl_->counted);
        impl_->counted = bytes;
    }
}

void GraphRunner::run(Graph& graph) {
    Graph::Impl& g = *graph.impl_;
    g.plan.work_data = impl_->work.data();
    if (ggml_graph_compute(g.graph, &g.plan) != GGML_STATUS_SUCCESS) {
        throw failure("ggml could not compute a graph of the model.");
    }
}

int GraphRunner::threads() const {
    return impl_->threads;
}

void write_tensor(ggml_tensor* tensor, const void* data) {
    ggml_backend_tensor_set(tensor, data, 0, ggml_nbytes(tensor));
}

void read_tensor(const ggml_tensor* tensor, void* data) {
    ggml_backend_tensor_get(tensor, data, 0, ggml_nbytes(tensor));
}

}  // namespace winnow

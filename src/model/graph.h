// Small ggml graphs that are built once and run many times.
#pragma once

#include <ggml-alloc.h>
#include <ggml.h>

#include <memory>
#include <vector>

#include "core/memory.h"
#include "model/arch.h"

namespace winnow {

/// A graph with named inputs and outputs. It is built by the caller through context(), then
/// placed by a GraphRunner. Movable.
class Graph {
  public:
    /// Room for `nodes` tensors.
    explicit Graph(int nodes = 96);
    ~Graph();
    Graph(Graph&&) noexcept;
    Graph& operator=(Graph&&) noexcept;

    ggml_context* context() const;
    ggml_cgraph* handle() const;
    ggml_tensor* input_f32(int columns, int rows);
    ggml_tensor* input_i32(int rows);
    /// Marks a result: computed, and readable after run().
    void output(ggml_tensor* tensor);

  private:
    friend class GraphRunner;
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// Places graphs in one shared piece of memory and computes them. Graphs placed together may run
/// in any order, but what one computes is lost when the next one runs: set inputs before, read
/// outputs after each run. One thread at a time.
class GraphRunner {
  public:
    GraphRunner(int threads, MemoryMeter* meter);
    ~GraphRunner();

    /// Gives every tensor of the graphs its place. The graphs must outlive the runner's use.
    void place(std::vector<Graph*> graphs);
    void run(Graph& graph);
    int threads() const;

  private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

/// Copies between host memory and a tensor; the only way the engine touches model tensors.
void write_tensor(ggml_tensor* tensor, const void* data);
void read_tensor(const ggml_tensor* tensor, void* data);

}  // namespace winnow

// NCCL pretended: gloo on host aliases of pretend CUDA tensors; refuses CPU tensors as NCCL does.
#include <ATen/ATen.h>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>
#include <torch/csrc/distributed/c10d/Types.hpp>
#include <torch/csrc/utils/pybind.h>
#include <pybind11/chrono.h>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

using at::Tensor; using namespace c10d;
template <typename T> using ip = c10::intrusive_ptr<T>;
static std::map<std::string,int64_t> counts; static std::mutex lock;
static Tensor cpu(const Tensor& t, const char* what) {
  TORCH_CHECK(t.is_cuda(), "Tensors must be CUDA and dense (", what, ": ", t.device(), ")");
  TORCH_CHECK(t.is_non_overlapping_and_dense(), "Tensors must be contiguous (", what, ")");
  Tensor keep = t;
  return at::from_blob(t.data_ptr(), t.sizes(), t.strides(), [keep](void*) {}, t.options().device(at::kCPU).requires_grad(false));
}
static void note(const char* w, const Tensor& t) { std::lock_guard<std::mutex> g(lock); counts[std::string(w) + " " + std::string(c10::toString(t.scalar_type()))]++; }
static std::vector<Tensor> cpus(std::vector<Tensor>& v, const char* w) { std::vector<Tensor> o; for (auto& t : v) { note(w, t); o.push_back(cpu(t, w)); } return o; }
struct PretendOptions final : public Backend::Options {
  PretendOptions() : Backend::Options("nccl") {}
};
struct PretendNccl final : public Backend {
  ip<Backend> g;
  ip<PretendOptions> options;
  explicit PretendNccl(ip<Backend> gloo, ip<PretendOptions> o) : Backend(gloo->getRank(), gloo->getSize()), g(gloo), options(o) {}
  bool supportsSplitting() const override { return true; }
  ip<Backend::Options> getBackendOptions() override { return options; }
  ip<Backend> split(const ip<Store>& store, const std::vector<int>& ranks, const ip<Backend::Options>& o) override {
    auto mine = c10::dynamic_intrusive_pointer_cast<PretendOptions>(o);
    TORCH_CHECK(mine, "opts not a ProcessGroupNCCL::Options.");
    auto go = g->getBackendOptions();
    auto saved = std::make_tuple(go->timeout, go->group_name, go->global_ranks_in_group);
    go->timeout = o->timeout; go->group_name = o->group_name; 
    ip<Store> sub = c10::make_intrusive<PrefixStore>("pretend_nccl/", store);
    auto r = g->split(sub, ranks, go);
    go->timeout = std::get<0>(saved); go->group_name = std::get<1>(saved); go->global_ranks_in_group = std::get<2>(saved);
    if (!r) return nullptr;
    return c10::make_intrusive<PretendNccl>(r, c10::make_intrusive<PretendOptions>(*mine));
  }
  const std::string getBackendName() const override { return "nccl"; }
  bool supportsCoalescing() const override { return false; }
  ip<Work> done(ip<Work> w) { py::gil_scoped_release* r = nullptr; if (PyGILState_Check()) r = new py::gil_scoped_release(); w->wait(); delete r; return w; }
  static bool small(const Tensor& t) { return t.scalar_type() == at::kBFloat16 || t.scalar_type() == at::kHalf; }
  ip<Work> allreduce(std::vector<Tensor>& ts, const AllreduceOptions& o) override {
    auto c = cpus(ts, "allreduce"); std::vector<Tensor> w; for (auto& t : c) w.push_back(small(t) || !t.is_contiguous() ? t.to(at::kFloat).contiguous() : t);
    AllreduceOptions p = o; bool avg = o.reduceOp == ReduceOp::AVG; if (avg) p.reduceOp = ReduceOp::SUM;
    auto r = done(g->allreduce(w, p));
    for (size_t i = 0; i < c.size(); ++i) { if (avg) w[i].div_(getSize()); if (w[i].data_ptr() != c[i].data_ptr()) c[i].copy_(w[i]); }
    return r;
  }
  ip<Work> allreduce_coalesced(std::vector<Tensor>& ts, const AllreduceCoalescedOptions& o) override { AllreduceOptions p; p.reduceOp = o.reduceOp; ip<Work> r; for (auto& t : ts) { std::vector<Tensor> v{t}; r = allreduce(v, p); } return r; }
  ip<Work> broadcast(std::vector<Tensor>& ts, const BroadcastOptions& o) override { auto c = cpus(ts, "broadcast"); return done(g->broadcast(c, o)); }
  ip<Work> reduce(std::vector<Tensor>& ts, const ReduceOptions& o) override { auto c = cpus(ts, "reduce"); return done(g->reduce(c, o)); }
  ip<Work> allgather(std::vector<std::vector<Tensor>>& out, std::vector<Tensor>& in, const AllgatherOptions& o) override {
    std::vector<std::vector<Tensor>> c; for (auto& v : out) c.push_back(cpus(v, "allgather.out")); auto i = cpus(in, "allgather"); return done(g->allgather(c, i, o)); }
  ip<Work> _allgather_base(Tensor& out, Tensor& in, const AllgatherOptions& o) override { note("allgather_base", in); Tensor a = cpu(out, "allgather_base"), b = cpu(in, "allgather_base").clone(); return done(g->_allgather_base(a, b, o)); }
  ip<Work> allgather_into_tensor_coalesced(std::vector<Tensor>& out, std::vector<Tensor>& in, const AllgatherOptions& o) override { ip<Work> r; for (size_t k = 0; k < out.size(); ++k) r = _allgather_base(out[k], in[k], o); return r; }
  ip<Work> _reduce_scatter_base(Tensor& out, Tensor& in, const ReduceScatterOptions& o) override {
    note("reduce_scatter_base", in);
    TORCH_CHECK(out.scalar_type() == in.scalar_type(), "output tensor must have the same type as input tensor");
    Tensor a = cpu(out, "reduce_scatter"), b = cpu(in, "reduce_scatter").to(at::kFloat).clone().flatten();
    bool avg = o.reduceOp == ReduceOp::AVG; 
    std::vector<Tensor> v{b}; AllreduceOptions p; p.reduceOp = ReduceOp::SUM; auto r = done(g->allreduce(v, p));
    if (avg) b.div_(getSize());
    TORCH_CHECK(avg || o.reduceOp == ReduceOp::SUM, "reduce op");
    a.flatten().copy_(b.slice(0, getRank() * a.numel(), (getRank() + 1) * a.numel()));
    return r;
  }
  ip<Work> reduce_scatter_tensor_coalesced(std::vector<Tensor>& out, std::vector<Tensor>& in, const ReduceScatterOptions& o) override { ip<Work> r; for (size_t k = 0; k < out.size(); ++k) r = _reduce_scatter_base(out[k], in[k], o); return r; }
  ip<Work> reduce_scatter(std::vector<Tensor>& out, std::vector<std::vector<Tensor>>& in, const ReduceScatterOptions& o) override { ip<Work> r; for (size_t k = 0; k < out.size(); ++k) { Tensor whole = at::stack(in[k]); r = _reduce_scatter_base(out[k], whole, o); } return r; }
  ip<Work> gather(std::vector<std::vector<Tensor>>& out, std::vector<Tensor>& in, const GatherOptions& o) override { std::vector<std::vector<Tensor>> c; for (auto& v : out) c.push_back(cpus(v, "gather.out")); auto i = cpus(in, "gather"); return done(g->gather(c, i, o)); }
  ip<Work> scatter(std::vector<Tensor>& out, std::vector<std::vector<Tensor>>& in, const ScatterOptions& o) override { std::vector<std::vector<Tensor>> c; for (auto& v : in) c.push_back(cpus(v, "scatter.in")); auto i = cpus(out, "scatter"); return done(g->scatter(i, c, o)); }
  ip<Work> alltoall_base(Tensor& out, Tensor& in, std::vector<int64_t>& a, std::vector<int64_t>& b, const AllToAllOptions& o) override { Tensor x = cpu(out, "alltoall"), y = cpu(in, "alltoall"); return done(g->alltoall_base(x, y, a, b, o)); }
  ip<Work> send(std::vector<Tensor>& t, int d, int tag) override { auto c = cpus(t, "send"); return done(g->send(c, d, tag)); }
  ip<Work> recv(std::vector<Tensor>& t, int s, int tag) override { auto c = cpus(t, "recv"); return done(g->recv(c, s, tag)); }
  ip<Work> barrier(const BarrierOptions& o) override { { std::lock_guard<std::mutex> l(lock); counts["barrier ids=" + std::to_string(o.device_ids.size())]++; } BarrierOptions p = o; p.device_ids = {}; return done(g->barrier(p)); }
  void setSequenceNumberForGroup() override { g->setSequenceNumberForGroup(); }
  uint64_t getSequenceNumberForGroup() override { return g->getSequenceNumberForGroup(); }
  void setTimeout(std::chrono::milliseconds t) override { g->setTimeout(t); options->timeout = t; }
  void eagerConnectSingleDevice(at::Device) override {}
  void abort() override { g->abort(); }
  void shutdown() override { g->shutdown(); }
};
PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  py::module_::import("torch.distributed");
  py::class_<PretendOptions, Backend::Options, ip<PretendOptions>>(m, "Options").def(py::init([]() { return c10::make_intrusive<PretendOptions>(); }))
    .def_readwrite("global_ranks_in_group", &PretendOptions::global_ranks_in_group).def_readwrite("group_name", &PretendOptions::group_name)
    .def("__deepcopy__", [](const PretendOptions& self, const py::dict&) { return c10::make_intrusive<PretendOptions>(self); }, py::arg("memo")).def("__copy__", [](const PretendOptions& self) { return c10::make_intrusive<PretendOptions>(self); });
  py::class_<PretendNccl, Backend, ip<PretendNccl>>(m, "PretendNccl", py::dynamic_attr()).def(py::init([](ip<Backend> g, ip<PretendOptions> o) { return c10::make_intrusive<PretendNccl>(g, o); })).def("_set_sequence_number_for_group", [](PretendNccl&) {}).def("_set_default_timeout", [](PretendNccl& f, std::chrono::milliseconds t) { f.setTimeout(t); }).def_property_readonly("options", [](PretendNccl& f) { return f.options; });
  m.def("resize", [](const Tensor& t, int64_t n) {
    auto* st = t.storage().unsafeGetStorageImpl();
    auto d = st->allocator()->allocate(n);
    size_t k = std::min<size_t>(n, st->nbytes());
    if (k) memcpy(d.get(), st->data(), k);
    st->set_data_ptr_noswap(std::move(d)); st->set_nbytes((size_t)n);
  });
  m.def("counts", [] { return counts; });
}

// A pretend CUDA device in host memory, for a CPU build of torch: every operator of the CUDA key runs on the CPU
// over aliases; mixing devices is an error as on a real GPU.
#include <ATen/ATen.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/library.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/native/Resize.h>
#include <ATen/native/TensorFactories.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <c10/core/impl/alloc_cpu.h>
#include <atomic>
#include <mutex>
#include <set>
#include <unordered_map>

namespace {
thread_local int cur_dev = 0;
std::atomic<int64_t> allocated{0}, peak{0};

void note(int64_t n) {
  int64_t now = (allocated += n), was = peak.load();
  while (now > was && !peak.compare_exchange_weak(was, now)) {}
}
struct Header { size_t size; };
struct PretendAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override { return make(n, cur_dev); }
  static c10::DataPtr make(size_t n, int index) {
    if (!n) return {nullptr, nullptr, &del, c10::Device(c10::kCUDA, index)};
    char* p = (char*)c10::alloc_cpu(n + 64);
    ((Header*)p)->size = n;
    note(n);
    return {p + 64, p, &del, c10::Device(c10::kCUDA, index)};
  }
  static void del(void* p) { if (p) { note(-(int64_t)((Header*)p)->size); c10::free_cpu(p);} }
  void copy_data(void* d, const void* s, size_t n) const override { memcpy(d, s, n); }
};
PretendAllocator allocator;

std::mutex pinned_lock;
std::map<char*, size_t> pinned;
struct PinnedAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    char* p = n ? (char*)c10::alloc_cpu(n) : nullptr;
    if (p) { std::lock_guard<std::mutex> g(pinned_lock); pinned[p] = n; }
    return {p, p, &del, c10::Device(c10::kCPU)};
  }
  static void del(void* p) { if (p) { { std::lock_guard<std::mutex> g(pinned_lock); pinned.erase((char*)p); } c10::free_cpu(p);} }
  void copy_data(void* d, const void* s, size_t n) const override { memcpy(d, s, n); }
};
PinnedAllocator pinned_allocator;
bool is_pinned(const void* q) {
  std::lock_guard<std::mutex> g(pinned_lock);
  auto it = pinned.upper_bound((char*)q);
  if (it == pinned.begin()) return false;
  --it;
  return (char*)q < it->first + it->second;
}

struct Gen final : c10::GeneratorImpl {
  at::Generator inner;
  explicit Gen(int index) : c10::GeneratorImpl(c10::Device(c10::kCUDA, index), c10::DispatchKeySet(c10::DispatchKey::CUDA)),
      inner(at::make_generator<at::CPUGeneratorImpl>(c10::default_rng_seed_val)) {}
  void set_current_seed(uint64_t s) override { inner.set_current_seed(s); }
  void set_offset(uint64_t) override {}
  uint64_t get_offset() const override { return 0; }
  uint64_t current_seed() const override { return inner.current_seed(); }
  uint64_t seed() override { return inner.seed(); }
  void set_state(const c10::TensorImpl& s) override { inner.unsafeGetGeneratorImpl()->set_state(s); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return inner.unsafeGetGeneratorImpl()->get_state(); }
  Gen* clone_impl() const override { auto g = new Gen(device_.index()); g->inner = inner.clone(); return g; }
};
at::Generator& default_gen() { static at::Generator g = at::make_generator<Gen>(0); return g; }

struct CUDAHooks final : at::CUDAHooksInterface {
  CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override { return default_gen(); }
  at::Generator getNewGenerator(c10::DeviceIndex i) const override { return at::make_generator<Gen>(i < 0 ? 0 : i); }
  c10::Device getDeviceFromPtr(void*) const override { return c10::Device(c10::kCUDA, 0); }
  bool isPinnedPtr(const void* p) const override { return is_pinned(p); }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex current_device() const override { return cur_dev; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return &pinned_allocator; }
  c10::Allocator* getCUDADeviceAllocator() const override { return &allocator; }
  int getNumGPUs() const override { return 8; }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 8; }
  void setCurrentDevice(c10::DeviceIndex d) const override { cur_dev = d; }
  c10::DeviceIndex getCurrentDevice() const override { return cur_dev; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex d) const override { auto o = cur_dev; cur_dev = d; return o; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex d) const override { return exchangeDevice(d); }
  void deviceSynchronize(c10::DeviceIndex) const override {}
  
};
}
namespace at { using ::CUDAHooks; C10_REGISTER_CLASS(CUDAHooksRegistry, CUDAHooks, CUDAHooks) }

namespace {
struct Guard final : c10::impl::DeviceGuardImplInterface {
  static constexpr c10::DeviceType static_type = c10::kCUDA;
  Guard() = default;
  explicit Guard(c10::DeviceType) {}
  c10::DeviceType type() const override { return c10::kCUDA; }
  c10::Device exchangeDevice(c10::Device d) const override { c10::Device o(c10::kCUDA, cur_dev); if (d.index() >= 0) cur_dev = d.index(); return o; }
  c10::Device getDevice() const override { return c10::Device(c10::kCUDA, cur_dev); }
  void setDevice(c10::Device d) const override { if (d.index() >= 0) cur_dev = d.index(); }
  void uncheckedSetDevice(c10::Device d) const noexcept override { if (d.index() >= 0) cur_dev = d.index(); }
  c10::Stream getStream(c10::Device d) const override { return c10::Stream(c10::Stream::DEFAULT, c10::Device(c10::kCUDA, d.index() < 0 ? cur_dev : d.index())); }
  c10::Stream getDefaultStream(c10::Device d) const override { return getStream(d); }
  c10::Stream getNewStream(c10::Device d, int) const override { return getStream(d); }
  c10::Stream exchangeStream(c10::Stream s) const override { return getStream(s.device()); }
  c10::DeviceIndex deviceCount() const noexcept override { return 8; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
  double elapsedTime(void*, void*, const c10::DeviceIndex) const override { return 1.0; }
};
C10_REGISTER_GUARD_IMPL(CUDA, Guard)

using at::Tensor;

struct Aliases {
  std::unordered_map<c10::StorageImpl*, c10::Storage> cpu_of;       // cuda storage -> cpu alias storage
  std::unordered_map<c10::StorageImpl*, Tensor> cuda_of;            // cpu alias storage -> a cuda tensor
  c10::Device device{c10::kCUDA, 0};

  Tensor alias(const Tensor& t) {
    auto* st = t.storage().unsafeGetStorageImpl();
    auto found = cpu_of.find(st);
    if (found == cpu_of.end()) {
      void* p = st->nbytes() ? st->mutable_data() : nullptr;
      c10::DataPtr d(p, new c10::Storage(t.storage()), [](void* c) { delete (c10::Storage*)c; }, c10::Device(c10::kCPU));
      c10::Storage s(c10::Storage::use_byte_size_t(), st->nbytes(), std::move(d), c10::GetCPUAllocator(), true);
      found = cpu_of.emplace(st, s).first;
      cuda_of[s.unsafeGetStorageImpl()] = t;
    }
    Tensor r = at::detail::make_tensor<c10::TensorImpl>(c10::Storage(found->second), c10::DispatchKeySet(c10::DispatchKey::CPU), t.dtype());
    r.unsafeGetTensorImpl()->set_sizes_and_strides(t.sizes(), t.strides(), t.storage_offset());
    if (t.is_conj()) r._set_conj(true);
    if (t.is_neg()) r._set_neg(true);
    if (t.unsafeGetTensorImpl()->is_wrapped_number()) r.unsafeGetTensorImpl()->set_wrapped_number(true);
    return r;
  }
  Tensor wrap(const Tensor& c) {  // cpu result -> cuda tensor
    auto* st = c.storage().unsafeGetStorageImpl();
    auto found = cuda_of.find(st);
    c10::Storage s;
    if (found != cuda_of.end()) {
      s = found->second.storage();
    } else {
      // copied, so that the memory is counted
      auto d = PretendAllocator::make(st->nbytes(), device.index());
      if (st->nbytes()) memcpy(d.get(), st->data(), st->nbytes());
      s = c10::Storage(c10::Storage::use_byte_size_t(), st->nbytes(), std::move(d), &allocator, true);
    }
    Tensor r = at::detail::make_tensor<c10::TensorImpl>(std::move(s), c10::DispatchKeySet(c10::DispatchKey::CUDA), c.dtype());
    r.unsafeGetTensorImpl()->set_sizes_and_strides(c.sizes(), c.strides(), c.storage_offset());
    if (c.is_conj()) r._set_conj(true);
    if (c.is_neg()) r._set_neg(true);
    return r;
  }
};

bool index_like(const std::string& n) {
  return n.rfind("aten::index", 0) == 0 || n.rfind("aten::_index_put", 0) == 0 || n.rfind("aten::_unsafe_index", 0) == 0 || n.rfind("aten::_unsafe_masked_index",0)==0;
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  const auto& schema = op.schema();
  const auto num_args = schema.arguments().size();
  const auto begin = stack->size() - num_args;
  Aliases a;
  std::vector<std::pair<Tensor, Tensor>> in;  // cuda, cpu alias
  bool found_device = false;
  auto see = [&](const Tensor& t) {
    if (t.defined() && t.is_cuda()) {
      if (found_device && a.device != t.device())
        TORCH_CHECK(false, "Expected all tensors to be on the same device, but found at least two devices, ", a.device, " and ", t.device(), "! (", schema.name(), ")");
      a.device = t.device(); found_device = true;
    }
  };
  for (size_t i = 0; i < num_args; ++i) {
    auto& v = (*stack)[begin + i];
    if (v.isTensor()) see(v.toTensor());
    else if (v.isTensorList()) for (const Tensor& t : v.toTensorVector()) see(t);
    else if (v.isOptionalTensorList()) for (const std::optional<Tensor>& t : v.toOptionalTensorList()) { if (t) see(*t); }
    else if (v.isDevice() && v.toDevice().is_cuda()) { a.device = c10::Device(c10::kCUDA, v.toDevice().index() < 0 ? cur_dev : v.toDevice().index()); }
  }
  const bool indexing = index_like(schema.name());
  auto convert = [&](const Tensor& t, size_t place) -> Tensor {
    if (!t.defined()) return t;
    if (t.is_cuda()) { Tensor c = a.alias(t); in.emplace_back(t, c); return c; }
    if (found_device && t.is_cpu() && t.dim() > 0 && !(indexing && place > 0))
      TORCH_CHECK(false, "Expected all tensors to be on the same device, but found at least two devices, ", a.device, " and cpu! (", schema.name(), ", argument ", place, ")");
    return t;
  };
  for (size_t i = 0; i < num_args; ++i) {
    auto& v = (*stack)[begin + i];
    if (v.isTensor()) { Tensor t = v.toTensor(); v = c10::IValue(convert(t, i)); }
    else if (v.isTensorList()) {
      std::vector<Tensor> ts = v.toTensorVector(), out;
      for (auto& t : ts) out.push_back(convert(t, i));
      v = c10::IValue(c10::List<Tensor>(out));
    } else if (v.isOptionalTensorList()) {
      c10::List<std::optional<Tensor>> out;
      for (const std::optional<Tensor>& t : v.toOptionalTensorList()) out.push_back(t ? std::optional<Tensor>(convert(*t, i)) : std::nullopt);
      v = c10::IValue(out);
    } else if (v.isDevice()) { if (v.toDevice().is_cuda()) v = c10::IValue(c10::Device(c10::kCPU)); }
    else if (v.isGenerator()) {
      at::Generator g = v.toGenerator();
      if (g.defined()) {
        TORCH_CHECK(g.device().is_cuda() , "Expected a 'cuda' device type for generator but found '", g.device(), "'");
        v = c10::IValue(static_cast<Gen*>(g.unsafeGetGeneratorImpl())->inner);
      }
    }
  }
  {
    op.redispatchBoxed(c10::DispatchKeySet(c10::DispatchKey::CPU), stack);
  }
  // sizes that operators with out= have changed
  for (auto& [cuda, cpu] : in) {
    auto* before = cuda.storage().unsafeGetStorageImpl();
    auto* now = cpu.storage().unsafeGetStorageImpl();
    if (now->nbytes() != before->nbytes() || (now->nbytes() && now->data() != before->data())) {
      auto d = PretendAllocator::make(now->nbytes(), a.device.index());
      if (now->nbytes()) memcpy(d.get(), now->data(), now->nbytes());
      before->set_data_ptr_noswap(std::move(d));
      before->set_nbytes(now->nbytes());
    }
    if (!cpu.sizes().equals(cuda.sizes()) || !cpu.strides().equals(cuda.strides()) || cpu.storage_offset() != cuda.storage_offset())
      cuda.unsafeGetTensorImpl()->set_sizes_and_strides(cpu.sizes(), cpu.strides(), cpu.storage_offset());
  }
  const auto num_returns = schema.returns().size();
  const auto first = stack->size() - num_returns;
  auto back = [&](const Tensor& t) -> Tensor {
    if (!t.defined() || !t.is_cpu()) return t;
    for (auto& [cuda, cpu] : in) if (cpu.unsafeGetTensorImpl() == t.unsafeGetTensorImpl()) return cuda;
    return a.wrap(t);
  };
  for (size_t i = 0; i < num_returns; ++i) {
    auto& v = (*stack)[first + i];
    if (v.isTensor()) { Tensor t = v.toTensor(); v = c10::IValue(back(t)); }
    else if (v.isTensorList()) {
      std::vector<Tensor> out;
      for (auto& t : v.toTensorVector()) out.push_back(back(t));
      v = c10::IValue(c10::List<Tensor>(out));
    }
  }
}

Tensor empty_memory_format(c10::IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>, std::optional<c10::Device> device, std::optional<bool>, std::optional<c10::MemoryFormat> format) {
  int index = device && device->index() >= 0 ? device->index() : cur_dev;
  auto type = c10::scalarTypeToTypeMeta(dtype.value_or(c10::get_default_dtype_as_scalartype()));
  int64_t n = c10::multiply_integers(size) * type.itemsize();
  c10::Storage s(c10::Storage::use_byte_size_t(), n, PretendAllocator::make(n, index), &allocator, true);
  Tensor r = at::detail::make_tensor<c10::TensorImpl>(std::move(s), c10::DispatchKeySet(c10::DispatchKey::CUDA), type);
  if (size.size() != 1 || size[0] != 0) r.unsafeGetTensorImpl()->set_sizes_contiguous(size);
  if (format && *format != c10::MemoryFormat::Contiguous && *format != c10::MemoryFormat::Preserve) r.unsafeGetTensorImpl()->empty_tensor_restride(*format);
  return r;
}
Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout>, std::optional<c10::Device> device, std::optional<bool>) {
  int index = device && device->index() >= 0 ? device->index() : cur_dev;
  auto type = c10::scalarTypeToTypeMeta(dtype.value_or(c10::get_default_dtype_as_scalartype()));
  size_t n = at::detail::computeStorageNbytes(size, stride, type.itemsize());
  c10::Storage s(c10::Storage::use_byte_size_t(), n, PretendAllocator::make(n, index), &allocator, true);
  Tensor r = at::detail::make_tensor<c10::TensorImpl>(std::move(s), c10::DispatchKeySet(c10::DispatchKey::CUDA), type);
  r.unsafeGetTensorImpl()->set_sizes_and_strides(size, stride);
  return r;
}
Tensor cpu_view_of(const Tensor& t) { Aliases a; return t.is_cuda() ? a.alias(t) : t; }
Tensor& copy_(Tensor& self, const Tensor& src, bool) {
  Tensor s = cpu_view_of(self), o = cpu_view_of(src);
  at::AutoDispatchBelowAutograd guard;
  s.copy_(o);
  return self;
}
Tensor copy_from(const Tensor& self, const Tensor& dst, bool nb) { Tensor d = dst; copy_(d, self, nb); return d; }
Tensor copy_from_and_resize(const Tensor& self, const Tensor& dst) { Tensor d = dst; d.resize_(self.sizes()); copy_(d, self, false); return d; }
const Tensor& resize_(const Tensor& self, c10::IntArrayRef size, std::optional<c10::MemoryFormat>) {
  auto* impl = self.unsafeGetTensorImpl();
  size_t need = at::detail::computeStorageNbytesContiguous(size, self.dtype().itemsize(), self.storage_offset());
  auto* st = self.storage().unsafeGetStorageImpl();
  if (need > st->nbytes()) {
    auto d = PretendAllocator::make(need, self.device().index());
    if (st->nbytes()) memcpy(d.get(), st->data(), st->nbytes());
    st->set_data_ptr_noswap(std::move(d)); st->set_nbytes(need);
  }
  impl->set_sizes_contiguous(size);
  return self;
}
Tensor& set_source_storage(Tensor& self, at::Storage source) {
  int64_t n = source.nbytes() / self.dtype().itemsize();
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(source);
  self.unsafeGetTensorImpl()->set_sizes_and_strides(c10::IntArrayRef({n}), c10::IntArrayRef({1}), std::optional<int64_t>(0));
  return self;
}
Tensor& set_source_storage_offset(Tensor& self, at::Storage source, int64_t offset, c10::IntArrayRef size, c10::IntArrayRef stride) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(source);
  std::vector<int64_t> st(stride.begin(), stride.end());
  if (st.empty() && !size.empty()) { st.resize(size.size()); int64_t run = 1; for (int i = size.size() - 1; i >= 0; --i) { st[i] = run; run *= std::max<int64_t>(size[i], 1);} }
  self.unsafeGetTensorImpl()->set_sizes_and_strides(size, st, offset);
  return self;
}
Tensor& set_tensor(Tensor& self, const Tensor& source) {
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(source.storage());
  self.unsafeGetTensorImpl()->set_sizes_and_strides(source.sizes(), source.strides(), source.storage_offset());
  return self;
}
Tensor& set_empty(Tensor& self) {
  c10::Storage s(c10::Storage::use_byte_size_t(), 0, PretendAllocator::make(0, self.device().index()), &allocator, true);
  self.unsafeGetTensorImpl()->set_storage_keep_dtype(s);
  self.unsafeGetTensorImpl()->set_sizes_and_strides(c10::IntArrayRef({0}), c10::IntArrayRef({1}), std::optional<int64_t>(0));
  return self;
}

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }
TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", empty_memory_format);
  m.impl("empty_strided", empty_strided);
  m.impl("copy_", copy_);
  m.impl("_copy_from", copy_from);
  m.impl("_copy_from_and_resize", copy_from_and_resize);
  m.impl("resize_", resize_);
  m.impl("set_.source_Storage", set_source_storage);
  m.impl("set_.source_Storage_storage_offset", set_source_storage_offset);
  m.impl("set_.source_Tensor", set_tensor);
  m.impl("set_", set_empty);
  m.impl("record_stream", [](Tensor&, c10::Stream) {});
}
}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.def("allocated", [] { return allocated.load(); });
  m.def("peak", [] { return peak.load(); });
  m.def("reset_peak", [] { peak = allocated.load(); });
  m.def("set_device", [](int i) { cur_dev = i; });
  m.def("current_device", [] { return cur_dev; });
  m.def("cpu_alias", [](const Tensor& t) { return cpu_view_of(t.detach()); });
}

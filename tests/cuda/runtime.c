/* libcudart without a GPU: memory is the host's, and a kernel is counted and not run.
 *
 * It has what Jittor's core and the kernels of this project call; what else is called is an
 * "undefined symbol" where a kernel is loaded.
 */
#include <cuda_runtime_api.h>
#include <stdlib.h>
#include <string.h>

/* What tests/cuda/conftest.py reads. A copy to the device counts where the host waits for it. */
struct { long launches, to_device, to_host, waits; } null_gpu;

static int event;  /* streams and events are addresses that nothing looks at */

cudaError_t cudaGetDeviceCount(int* n) { *n = 1; return cudaSuccess; }
cudaError_t cudaSetDevice(int device) { return cudaSuccess; }
cudaError_t cudaGetDeviceProperties(struct cudaDeviceProp* device, int i) {
    memset(device, 0, sizeof *device);
    device->major = 9;
    return cudaSuccess;
}
cudaError_t cudaGetLastError(void) { return cudaSuccess; }
const char* cudaGetErrorName(cudaError_t error) { return "an error of the null GPU"; }

cudaError_t cudaMalloc(void** p, size_t n) { *p = calloc(1, n); return cudaSuccess; }
cudaError_t cudaMallocHost(void** p, size_t n) { return cudaMalloc(p, n); }
cudaError_t cudaMallocManaged(void** p, size_t n, unsigned flags) { return cudaMalloc(p, n); }
cudaError_t cudaFree(void* p) { free(p); return cudaSuccess; }
cudaError_t cudaFreeHost(void* p) { free(p); return cudaSuccess; }
cudaError_t cudaMemGetInfo(size_t* available, size_t* total) {
    *available = *total = 16ul << 30;
    return cudaSuccess;
}
cudaError_t cudaMemset(void* p, int value, size_t n) { memset(p, value, n); return cudaSuccess; }
cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t n, enum cudaMemcpyKind kind,
                            cudaStream_t stream) {
    null_gpu.to_host += kind == cudaMemcpyDeviceToHost;
    memcpy(to, from, n);
    return cudaSuccess;
}
cudaError_t cudaMemcpy(void* to, const void* from, size_t n, enum cudaMemcpyKind kind) {
    null_gpu.to_device += kind == cudaMemcpyHostToDevice;
    return cudaMemcpyAsync(to, from, n, kind, 0);
}

cudaError_t cudaDeviceSynchronize(void) { null_gpu.waits++; return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t e) { null_gpu.waits++; return cudaSuccess; }
cudaError_t cudaEventCreate(cudaEvent_t* e) { *e = (cudaEvent_t)&event; return cudaSuccess; }
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* e, unsigned flags) { return cudaEventCreate(e); }
cudaError_t cudaEventDestroy(cudaEvent_t e) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t e, cudaStream_t stream) { return cudaSuccess; }
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t a, cudaEvent_t b) {
    *ms = 0;
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t* stream, unsigned flags) {
    *stream = (cudaStream_t)&event;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) { return cudaSuccess; }
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t e, unsigned flags) {
    return cudaSuccess;
}
cudaError_t cudaLaunchHostFunc(cudaStream_t stream, cudaHostFn_t work, void* data) {
    work(data);
    return cudaSuccess;
}

/* What nvcc makes of a kernel and of kernel<<<…>>>(…). */
static __thread struct { dim3 grid, block; size_t shared; void* stream; } call;

void** __cudaRegisterFatBinary(void* code) { static void* handle; return &handle; }
void __cudaRegisterFatBinaryEnd(void** handle) {}
void __cudaUnregisterFatBinary(void** handle) {}
void __cudaRegisterFunction(void** handle, const char* host, char* device, const char* name,
                            int threads, void* a, void* b, void* c, void* d, int* e) {}
void __cudaRegisterVar(void** handle, char* host, char* device, const char* name, int external,
                       size_t size, int constant, int global) {}
char __cudaInitModule(void** handle) { return 1; }
unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, void* stream) {
    call.grid = grid;
    call.block = block;
    call.shared = shared;
    call.stream = stream;
    return 0;
}
cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void** stream) {
    *grid = call.grid;
    *block = call.block;
    *shared = call.shared;
    *stream = call.stream;
    return cudaSuccess;
}
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
    *kernel = (cudaKernel_t)host;
    return cudaSuccess;
}
cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               size_t shared, cudaStream_t stream) {
    null_gpu.launches++;
    return cudaSuccess;
}

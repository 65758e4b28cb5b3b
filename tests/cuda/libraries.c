/* libcuda, libcublas and libcurand without a GPU: all that Jittor calls succeeds and does nothing.
 *
 * One library for all three names; without CUDA's headers, as no argument is looked at.
 */
#include <stddef.h>

int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int* version) { *version = 13000; return 0; }
int cuDeviceGetCount(int* n) { *n = 1; return 0; }
int cuDeviceGet(int* device, int i) { *device = i; return 0; }
int cuDeviceGetName(char* name, int n, int device) { name[0] = '0'; name[1] = 0; return 0; }
int cuDeviceGetAttribute(int* value, int attribute, int device) {
    *value = attribute == 75 ? 9 : 0;  /* CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR */
    return 0;
}

int cublasCreate_v2(void** handle) { *handle = NULL; return 0; }
int cublasDestroy_v2(void* handle) { return 0; }
int cublasSgemm_v2(void* handle) { return 0; }
int cublasGemmEx(void* handle) { return 0; }
int cublasGemmStridedBatchedEx(void* handle) { return 0; }

int curandCreateGenerator(void** generator) { *generator = NULL; return 0; }
int curandDestroyGenerator(void* generator) { return 0; }
int curandSetPseudoRandomGeneratorSeed(void* generator) { return 0; }
int curandGenerateUniform(void* generator) { return 0; }
int curandGenerateNormal(void* generator) { return 0; }

// What cuDNN asks of the CUDA driver while it makes a plan for a device that is not there: a library by the
// driver's name, libcuda.so.1, in which kernels load and everything that would run one is refused. Found with
// cuDNN 9.19 and 9.26.
namespace {
constexpr int ok = 0, not_there = 100;  // CUDA_SUCCESS, CUDA_ERROR_NO_DEVICE
int anything;
}  // namespace

// Functions are found by name and called with the driver's arguments, of which only the first is used.
#define UNROLL_REFUSED(name) \
  extern "C" int name() { return not_there; }
UNROLL_REFUSED(cuCtxGetCurrent)
UNROLL_REFUSED(cuCtxGetDevice)
UNROLL_REFUSED(cuCtxGetLimit)
UNROLL_REFUSED(cuCtxPopCurrent)
UNROLL_REFUSED(cuCtxPushCurrent)
UNROLL_REFUSED(cuDeviceGet)
UNROLL_REFUSED(cuDeviceGetAttribute)
UNROLL_REFUSED(cuDeviceGetCount)
UNROLL_REFUSED(cuDevicePrimaryCtxRelease)
UNROLL_REFUSED(cuDevicePrimaryCtxReset)
UNROLL_REFUSED(cuDevicePrimaryCtxRetain)
UNROLL_REFUSED(cuDriverGetVersion)
UNROLL_REFUSED(cuFuncGetAttribute)
UNROLL_REFUSED(cuGetErrorName)
UNROLL_REFUSED(cuGetErrorString)
UNROLL_REFUSED(cuInit)
UNROLL_REFUSED(cuKernelGetFunction)
UNROLL_REFUSED(cuLaunchCooperativeKernel)
UNROLL_REFUSED(cuLaunchKernel)
UNROLL_REFUSED(cuLaunchKernelEx)
UNROLL_REFUSED(cuLibraryLoadFromFile)
UNROLL_REFUSED(cuLinkAddData)
UNROLL_REFUSED(cuLinkAddData_v2)
UNROLL_REFUSED(cuLinkAddFile_v2)
UNROLL_REFUSED(cuLinkComplete)
UNROLL_REFUSED(cuLinkCreate)
UNROLL_REFUSED(cuLinkCreate_v2)
UNROLL_REFUSED(cuLinkDestroy)
UNROLL_REFUSED(cuMemcpyDtoH_v2)
UNROLL_REFUSED(cuModuleGetFunction)
UNROLL_REFUSED(cuModuleGetGlobal_v2)
UNROLL_REFUSED(cuModuleLoadData)
UNROLL_REFUSED(cuModuleLoadDataEx)
UNROLL_REFUSED(cuModuleLoadFatBinary)
UNROLL_REFUSED(cuModuleUnload)
UNROLL_REFUSED(cuOccupancyMaxPotentialClusterSize)
UNROLL_REFUSED(cuStreamGetCtx)
UNROLL_REFUSED(cuStreamSynchronize)
UNROLL_REFUSED(cuTensorMapEncodeTiled)

extern "C" int cuLibraryLoadData(void** library) { return *library = &anything, ok; }
extern "C" int cuLibraryGetKernel(void** kernel) { return *kernel = &anything, ok; }
extern "C" int cuLibraryUnload() { return ok; }
extern "C" int cuKernelSetAttribute() { return ok; }
extern "C" int cuFuncSetAttribute() { return ok; }
extern "C" int cuKernelGetAttribute(int* value) { return *value = 0, ok; }
extern "C" int cuOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks) { return *blocks = 1, ok; }

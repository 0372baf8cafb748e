# shellcheck shell=bash
# Where cuDNN is, for scripts that source this: in the usual places, in the CUDA toolkit, in python3's packages
# nvidia-cudnn-frontend and nvidia-cudnn-cu13, and in the folders that UNROLL_CUDNN_HEADERS names, separated by colons.

cudnn_places() { # cudnn_places SUFFIX: folders of python3's packages
  python3 -c 'import sys; print("\n".join(p for p in sys.path if p))' 2>/dev/null | sed "s|\$|/$1|"
}
# flags of the compiler for cudnn_frontend.h, cudnn.h and cuda_runtime_api.h; fails where one of them is missing
cudnn_headers() {
  local header place flags=
  for header in cudnn_frontend.h cudnn.h cuda_runtime_api.h; do
    for place in $(echo "${UNROLL_CUDNN_HEADERS:-}" | tr : ' ') /usr/local/cuda/include /usr/include /usr/local/include \
      $(cudnn_places include) $(cudnn_places nvidia/cudnn/include) $(cudnn_places nvidia/cu13/include); do
      if [ -e "$place/$header" ]; then
        case $place in /usr/include) ;; *) flags="$flags -isystem $place" ;; esac
        continue 2
      fi
    done
    return 1
  done
  echo "$flags"
}
# its file, a name that the loader finds, or nothing
cudnn_library() {
  local file
  if ldconfig -p 2>/dev/null | grep -q 'libcudnn\.so\.9'; then echo libcudnn.so.9; return; fi
  for file in $(cudnn_places nvidia/cudnn/lib/libcudnn.so.9) /usr/local/cuda/lib64/libcudnn.so.9 /usr/local/cuda/lib/libcudnn.so.9; do
    if [ -e "$file" ]; then echo "$file"; return; fi
  done
}

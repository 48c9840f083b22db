#!/bin/sh
# Inside the build of train-cuda: puts a DeepSpeed with compiled operators ($1, such as CPU_ADAM) in the place of the plain one.
# DeepSpeed compiles for the very CPU that it is built on; here it is told $2 (x86-64-v3: AVX2, every server since 2013), so
# that the image runs on other nodes than the builder's kind.
set -eu
operators=$1 cpu_arch=$2 python=/opt/hagane/bin/python
apt-get -q update
apt-get -q install -y --no-install-recommends g++ python3-dev
pip --python $python install --quiet --no-deps --target /opt/build-tools -r /requirements/build.txt
pip --python $python install --quiet --no-deps --require-hashes --target /opt/compiler -r /requirements/cuda-build.txt
# The wheels of CUDA's libraries (torch's) and of its compiler, put together as the one folder that builds expect.
cp -rs /opt/torch/nvidia/cu13 /opt/cuda
cp -rs /opt/compiler/nvidia/cu13/. /opt/cuda
ln -s lib /opt/cuda/lib64
for library in curand cudart; do ln -s lib$library.so.* /opt/cuda/lib/lib$library.so; done

cd "$(mktemp -d)"
sed -n '/^deepspeed==/,/[^\\]$/p' /requirements/train.txt > deepspeed.txt
pip download --quiet --no-deps --require-hashes -r deepspeed.txt
tar xf deepspeed-*.tar.gz
cd deepspeed-*/
if [ "$cpu_arch" != native ]; then
  sed -i "s/-march=native/-march=$cpu_arch/; s/-D__AVX512__/-D__AVX256__/" op_builder/builder.py
fi
for operator in $operators; do export "DS_BUILD_$operator=1"; done
CUDA_HOME=/opt/cuda PYTHONPATH=/opt/torch:/opt/build-tools DS_ACCELERATOR=cuda DS_BUILD_OPS=0 \
  pip --python $python install --quiet --no-deps --no-build-isolation --force-reinstall .

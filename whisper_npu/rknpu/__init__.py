"""Everything that is Rockchip; nothing above `devices.npu` knows it."""

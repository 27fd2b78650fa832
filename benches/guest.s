# The guest of scripts/bench-vm: writes a byte to COM1 and resets by ACPI's register. It has no more than its first instructions, so
# that any KVM runs it; they mean the same in the 64-bit mode in which the floor begins and in the 32-bit mode of PVH.
#
# With RESTORED=1 it does so only once its generation id is another, which is after a restore; with IDLE=1 it stops for good instead.

        .section .note.pvh, "a", @note
        .long 4, 4, 18                  # XEN_ELFNOTE_PHYS32_ENTRY
        .asciz "Xen"
        .long start

        .text
        .globl start
start:
.ifdef RESTORED
        mov $0xff000, %esi
        .byte 0x8b, 0x1e                # mov (%rsi), %ebx, or (%esi)
again:
        pause
        .byte 0x3b, 0x1e                # cmp (%rsi), %ebx
        je again
.endif
.ifdef IDLE
        hlt
        jmp start
.endif
        mov $0x3f8, %edx
        mov $'1', %al
        out %al, %dx
        mov $0x602, %edx
        mov $1, %al
        out %al, %dx
        ud2                             # QEMU has no such register: a triple fault resets there
